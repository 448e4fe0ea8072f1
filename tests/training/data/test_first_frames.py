"""Images of training clips: each is the clip's own first frame, however clips and latents are stored."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from landscape_video.training.data.clip_sampling import ClipBatchSampler, ClipRequest
from landscape_video.training.data.first_frames import WithFirstFrames, is_image_dropped
from landscape_video.training.data.latent_store import AutomaticCache, LatentCache, encode_videos, first_frames_shard
from landscape_video.training.data.video_dataset import VideoDataset
from pipeline_landscape_video.video_io import write_video
from retention_runs import STARTS, write_cache_with_first_frames
from tiny_models import build_vae
from training_runs import write_latent_cache


def request(clip: int, start: int, noise_seed: int = 0) -> ClipRequest:
    return ClipRequest(clip, start, stride=2, num_frames=3, text="", timestep=0, noise_seed=noise_seed)


def test_a_latent_cache_gives_the_frame_that_a_clip_begins_with(tmp_path):
    dataset = WithFirstFrames(LatentCache(write_cache_with_first_frames(tmp_path)), None)
    assert dataset.image_size == (64, 64) and dataset.last_start == STARTS - 1 and len(dataset) == 5
    for clip, start in ((0, 0), (2, 1), (4, 2)):
        item = dataset[request(clip, start)]
        assert item["image"].shape == (3, 64, 64) and item["latents"].shape == (3, 4, 8, 8)
        torch.testing.assert_close((item["image"] + 1) * 127.5, torch.full((3, 64, 64), 10.0 * clip + start))


def test_clips_start_where_there_is_an_image(tmp_path):
    dataset = WithFirstFrames(LatentCache(write_cache_with_first_frames(tmp_path)), None)

    def starts(last_start: int | None) -> set[int]:
        sampler = ClipBatchSampler(dataset, 0, 4, (6, 8), (1, 1), 0.1, 1000, 0, 40, last_start=last_start)
        return {one.start for batch in sampler for one in batch}

    assert starts(dataset.last_start) == {0, 1, 2}
    assert starts(None) == set(range(7))


def test_images_are_dropped_as_often_as_said_whatever_happens_to_captions(tmp_path):
    dataset = WithFirstFrames(LatentCache(write_cache_with_first_frames(tmp_path)), None, image_dropout_prob=0.2)
    sampler = ClipBatchSampler(dataset, 0, 50, (6, 8), (1, 1), 0.3, 1000, 0, 80)
    requests = [one for batch in sampler for one in batch]
    image = np.array([is_image_dropped(one, 0.2) for one in requests])
    text = np.array([one.text == "" for one in requests])
    assert image.mean() == pytest.approx(0.2, abs=0.03) and text.mean() == pytest.approx(0.3, abs=0.03)
    assert (image & text).mean() == pytest.approx(0.06, abs=0.02)  # independent of each other
    dropped = next(one for one, is_dropped in zip(requests, image, strict=True) if is_dropped)
    assert (dataset[dropped]["image"] == 1).all()  # white


@pytest.fixture
def videos(tmp_path) -> VideoDataset:
    """Two videos of 12 frames that get brighter."""
    folder = tmp_path / "videos"
    folder.mkdir()
    for number in range(2):
        levels = np.arange(12, dtype=np.uint8) * 12 + 50 * number
        frames = np.broadcast_to(levels[:, None, None, None], (12, 32, 32, 3))
        write_video(folder / f"{number}.mp4", np.ascontiguousarray(frames), fps=8)
    rows = [{"file_name": f"{number}.mp4", "text": "mist"} for number in range(2)]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return VideoDataset(folder, 32)


def test_videos_give_the_same_image_with_and_without_a_cache(videos, tmp_path):
    torch.manual_seed(0)
    vae = build_vae()
    plain = WithFirstFrames(videos, videos)
    cache = AutomaticCache(videos, vae, tmp_path / "cache")
    cache.encode()
    encoded = WithFirstFrames(cache.clips(), videos)
    encode_videos(videos, vae, tmp_path / "folder", num_frames=8, first_frames=4)
    folder = WithFirstFrames(LatentCache(tmp_path / "folder"), None)
    assert plain.last_start is None and encoded.last_start is None and folder.last_start == 3
    for clip, start in ((0, 0), (1, 3)):
        wanted = videos.read(clip, start, 1, 1)[0]
        assert wanted.mean() == pytest.approx((50 * clip + 12 * start) / 127.5 - 1, abs=0.05)
        for dataset in (plain, encoded, folder):
            torch.testing.assert_close(dataset[request(clip, start)]["image"], wanted, atol=1e-5, rtol=0)


def test_first_frames_that_are_missing_or_wrong_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"first_frames-00000.safetensors is missing.*--first_frames"):
        WithFirstFrames(LatentCache(write_latent_cache(tmp_path)), None)
    write_cache_with_first_frames(tmp_path)
    cache = LatentCache(tmp_path)
    shard = first_frames_shard(cache.shards[1])
    assert shard.name == "first_frames-00001.safetensors"
    good = shard.read_bytes()
    for frames, message in (
        (
            torch.zeros(3, 2, 3, 64, 64, dtype=torch.uint8),
            "must hold 2 clips as latents-00001.* does, got 3",
        ),
        (torch.zeros(2, 2, 3, 32, 32, dtype=torch.uint8), "differ in size"),
        (
            torch.zeros(2, 2, 64, 64, 3, dtype=torch.uint8),
            r"must be U8, \(clips, starts, 3, .* got U8, \(2, 2, 64",
        ),
        (torch.zeros(2, 2, 3, 64, 64), "got F32, "),
    ):
        save_file({"first_frames": frames}, shard)
        with pytest.raises(ValueError, match=message):
            WithFirstFrames(cache, None)
    shard.write_bytes(good[:50])
    with pytest.raises(ValueError, match="first_frames-00001.safetensors is damaged"):
        WithFirstFrames(cache, None)
