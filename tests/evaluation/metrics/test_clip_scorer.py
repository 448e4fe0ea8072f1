"""Embeddings of a CLIP do not depend on the batch, and folders without a CLIP are refused."""

import numpy as np
import pytest
import torch

from landscape_video.evaluation.metrics.video_features import ClipScorer
from pipeline_landscape_video import SHANSHUI_TINY


@pytest.fixture(scope="module")
def scorer() -> ClipScorer:
    return ClipScorer(batch_size=3)


def test_embeddings_do_not_depend_on_the_batch(scorer):
    clip = np.random.default_rng(0).integers(0, 256, (5, 128, 128, 3), dtype=np.uint8)
    whole, parts = ClipScorer(batch_size=8).frames(clip), scorer.frames(clip)
    assert whole.shape == (5, scorer.dim) and whole.dtype == torch.float64
    torch.testing.assert_close(whole, parts, atol=1e-6, rtol=0)
    torch.testing.assert_close(whole.norm(dim=1), torch.ones(5, dtype=torch.float64))


def test_protocol_of_a_clip(scorer):
    assert scorer.name == "shanshui-clip" and len(scorer.sha256) == 64
    assert scorer.description.startswith(f"shanshui-clip, sha256 {scorer.sha256}, resized to {{'shortest_edge': 128}}")
    assert " (PIL filter 3), center crop 128 x 128, mean [0.5, 0.5, 0.5]" in scorer.description
    assert not scorer.is_too_long("mist") and scorer.is_too_long("mist " * 80)
    torch.testing.assert_close(scorer.texts(["mist " * 75]), scorer.texts(["mist " * 90]))


def test_sources_that_are_no_clip(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="none: no such file or folder"):
        ClipScorer("./none")
    with pytest.raises(ValueError, match="not a CLIP model"):
        ClipScorer(tmp_path)
    with pytest.raises(ValueError, match="not a CLIP model"):
        ClipScorer(SHANSHUI_TINY / "vae")
    (tmp_path / "clip.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="must be a folder or a name on the Hub, got a file"):
        ClipScorer(tmp_path / "clip.safetensors")
