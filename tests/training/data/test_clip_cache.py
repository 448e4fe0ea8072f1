"""Latents and text states on disk: what did not change is read, what changed is encoded again, alone."""

import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from landscape_video.training.data import clip_cache
from landscape_video.training.data import prompt_embeds_cache as text_states
from landscape_video.training.data.batches import encode_once
from landscape_video.training.data.clip_cache import cache_clips
from landscape_video.training.data.clip_sampling import ClipRequest
from landscape_video.training.data.latents import encode_frames
from landscape_video.training.data.prompt_embeds_cache import TextStates
from landscape_video.training.data.tensor_store import TensorStore
from landscape_video.training.data.video_dataset import VideoDataset
from pipeline_landscape_video.video_io import write_video
from tiny_models import build_text_encoder, build_tokenizer, build_vae
from training_runs import WEIGHTS, digest, log_of, status_of


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three videos of 24 frames of noise."""
    directory = tmp_path / "videos"
    directory.mkdir()
    for number in range(3):
        write_noise(directory / f"{number}.mp4", number)
    rows = [{"file_name": f"{number}.mp4", "text": f"mist {number}"} for number in range(3)]
    (directory / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return directory


def write_noise(path: Path, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randint(0, 256, (24, 64, 64, 3), dtype=torch.uint8, generator=generator)
    write_video(path, frames.numpy(), fps=8)


@pytest.fixture
def encoded(monkeypatch) -> list[int]:
    """How many frames each call of the VAE got."""
    calls = []

    def counting(vae, pixel_values, *args):
        calls.append(len(pixel_values))
        return encode_frames(vae, pixel_values, *args)

    monkeypatch.setattr(clip_cache, "encode_frames", counting)
    return calls


def test_each_clip_is_encoded_once_and_read_as_the_video_would_be(folder, tmp_path, encoded):
    torch.manual_seed(0)
    videos, vae = VideoDataset(folder, 32), build_vae()
    clips = cache_clips(videos, vae, tmp_path / "cache")
    assert encoded == [24] * 3 and len(clips) == 3
    assert clips.lengths == videos.lengths and clips.captions == videos.captions and clips.name(1) == videos.name(1)
    request = ClipRequest(1, 2, 3, 5, text="", timestep=0, noise_seed=0)
    expected = encode_frames(vae, videos[request]["pixel_values"])
    torch.testing.assert_close(clips[request]["latents"], expected, atol=2e-3, rtol=2e-3)

    again = cache_clips(VideoDataset(folder, 32), vae, tmp_path / "cache")
    assert encoded == [24] * 3 and torch.equal(again[request]["latents"], clips[request]["latents"])


def test_a_changed_video_is_encoded_again_and_no_other(folder, tmp_path, encoded):
    torch.manual_seed(0)
    vae = build_vae()
    cache_clips(VideoDataset(folder, 32), vae, tmp_path / "cache")
    write_noise(folder / "1.mp4", seed=7)
    (folder / "0.mp4").rename(folder / "renamed.mp4")  # the same bytes elsewhere
    metadata = folder / "metadata.jsonl"
    metadata.write_text(metadata.read_text().replace("0.mp4", "renamed.mp4"))
    encoded.clear()
    clips = cache_clips(VideoDataset(folder, 32), vae, tmp_path / "cache")
    assert encoded == [24] and clips.name(0).endswith("renamed.mp4")


@pytest.mark.parametrize("change", ["resolution", "vae"])
def test_a_changed_setting_encodes_everything_again(folder, tmp_path, encoded, change):
    torch.manual_seed(0)
    vae = build_vae()
    cache_clips(VideoDataset(folder, 32), vae, tmp_path / "cache")
    encoded.clear()
    if change == "vae":
        vae.quant_conv.weight.data[0, 0] += 1
    cache_clips(VideoDataset(folder, 64 if change == "resolution" else 32), vae, tmp_path / "cache")
    assert encoded == [24] * 3


def test_processes_share_the_work(folder, tmp_path, encoded):
    torch.manual_seed(0)
    vae, videos = build_vae(), VideoDataset(folder, 32)
    first = cache_clips(videos, vae, tmp_path / "cache", process_index=0, num_processes=2)
    share = [name for name in first.names if name in first.store]
    assert len(share) == len(encoded) == 2
    # Whether the second process looks before the first has written, or after it: it encodes what the first leaves.
    for cache in (tmp_path / "second", tmp_path / "cache"):
        del encoded[len(share) :]
        store = cache_clips(videos, vae, cache, process_index=1, num_processes=2).store
        assert len(encoded) == 3
        assert {name for name in first.names if name in store} >= set(first.names) - set(share)
    first.store.refresh()
    assert all(name in first.store for name in first.names)


def test_machines_with_folders_of_their_own_are_told(folder, tmp_path, encoded):
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    states = TextStates(tokenizer, build_text_encoder(tokenizer))
    second_of_two = SimpleNamespace(process_index=1, num_processes=2, main_process_first=nullcontext)
    args = SimpleNamespace(cache_dir=tmp_path / "own")
    with pytest.raises(ValueError, match=r"own lacks 2 clips .* one folder for all of them"):
        encode_once(args, VideoDataset(folder, 32), build_vae(), states, second_of_two)


def test_what_does_not_fit_is_found_before_anything_is_encoded(train, folder, tmp_path, encoded):
    cache = ("--cache_dir", str(tmp_path / "cache"), "--resolution", "64")
    code, output = train("long", "--num_frames_range", "6", "--motion_max_seq_length", "4", *cache, data=folder)
    assert code == 1 and "has 4 positions" in status_of(output)["reason"]
    assert not encoded


def test_a_damaged_shard_is_written_again(tmp_path, caplog):
    store = TensorStore(tmp_path)
    store.write({"a": torch.arange(6.0).reshape(3, 2)})
    store.write({"b": torch.ones(2)})
    shard = store._shard_of["a"]
    shard.write_bytes(shard.read_bytes()[:-4])
    again = TensorStore(tmp_path)
    assert "a" not in again and "b" in again and f"Passed over {shard}" in caplog.text
    again.write({"a": torch.arange(6.0).reshape(3, 2)})
    assert TensorStore(tmp_path).read("a", slice(1, 3)).tolist() == [[2, 3], [4, 5]]
    assert not list(tmp_path.glob(".*"))


def test_captions_are_encoded_once(tmp_path, monkeypatch):
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    encoder = build_text_encoder(tokenizer)
    fresh = TextStates(tokenizer, encoder)(["mist", "a boat"])
    monkeypatch.setattr(text_states, "CAPTIONS_PER_SHARD", 1)
    TextStates(tokenizer, encoder).store(["mist", "a boat", "mist"], tmp_path)
    assert len(list(tmp_path.rglob("shard-*.safetensors"))) == 2

    calls = []
    monkeypatch.setattr(TextStates, "_encode", lambda states, text: calls.append(text) or fresh[:1])
    stored = TextStates(tokenizer, encoder, cache_bytes=0)
    stored.store(["mist", "a boat", "snow"], tmp_path)
    assert calls == ["snow"] and torch.equal(stored(["mist", "a boat"]), fresh)
    encoder.final_layer_norm.weight.data += 1
    TextStates(tokenizer, encoder).store(["mist"], tmp_path)
    assert calls == ["snow", "mist"]


def test_training_reads_the_cache_and_no_cache_does_without(train, folder, tmp_path, encoded):
    flags = ("--num_frames_range", "6", "--max_train_steps", "2", "--logging_steps", "1", "--resolution", "64")
    _, first = train("first", *flags, "--cache_dir", str(tmp_path / "cache"), data=folder)
    assert encoded == [24] * 3
    _, second = train("second", *flags, "--cache_dir", str(tmp_path / "cache"), data=folder)
    assert encoded == [24] * 3
    assert digest(first / "motion_adapter" / WEIGHTS) == digest(second / "motion_adapter" / WEIGHTS)
    _, plain = train("plain", *flags, "--no_cache", "--cache_dir", str(tmp_path / "unused"), data=folder)
    assert encoded == [24] * 3 and not (tmp_path / "unused").exists()
    for cached, uncached in zip(log_of(first), log_of(plain), strict=True):
        assert cached["diffusion_loss"] == pytest.approx(uncached["diffusion_loss"], rel=1e-3)
