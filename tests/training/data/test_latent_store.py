"""Latents on disk in both layouts: served as the VAE gives them, and encoded again only if something has changed."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from landscape_video.training.data import latent_store
from landscape_video.training.data.clip_sampling import ClipRequest
from landscape_video.training.data.first_frames import WithFirstFrames
from landscape_video.training.data.latent_store import (
    AutomaticCache,
    LatentCache,
    LatentClips,
    encode_frames,
    encode_videos,
    is_latent_cache,
    write_shard,
)
from landscape_video.training.data.video_dataset import VideoDataset
from pipeline_landscape_video.video_io import write_video
from tiny_models import build_vae
from training_runs import WEIGHTS, digest, log_of, status_of
from video_files import make_video_folder


def request(clip: int = 0, start: int = 0, num_frames: int = 4, stride: int = 1) -> ClipRequest:
    return ClipRequest(clip, start, stride, num_frames, text="", timestep=0, noise_seed=0)


# A latent cache


@pytest.fixture(scope="module")
def gray_videos(tmp_path_factory) -> Path:
    return make_video_folder(tmp_path_factory.mktemp("videos"), [20, 9])


def test_encoding_a_folder_gives_the_latents_that_training_would_compute(gray_videos, tmp_path):
    videos, vae = VideoDataset(gray_videos, resolution=32), build_vae()
    encode_videos(videos, vae, tmp_path / "cache", sample_stride=2)
    cache = LatentCache(tmp_path / "cache")
    assert cache.latent_shape == (4, 4, 4)
    assert cache.lengths == [5, 10] and cache.captions == [["clip 1", "片1"], ["clip 0", "片0"]]
    expected = encode_frames(vae, videos.read(0, start=2, num_frames=3, stride=6))
    item = cache[request(clip=1, start=1, num_frames=3, stride=3)]
    torch.testing.assert_close(item["latents"], expected, atol=2e-3, rtol=2e-3)


def make_cache(directory: Path, captions: list[dict], **shards: torch.Tensor) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for number, latents in enumerate(shards.values()):
        write_shard(directory, number, latents)
    (directory / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in captions))
    return directory


def test_clips_of_all_shards_are_numbered_in_order(tmp_path):
    latents = torch.arange(3 * 10, dtype=torch.float32).reshape(3, 10, 1, 1, 1)
    captions = [{"text": "a"}, {"text": "b", "texts": ["c", "b"]}, {"text": "d", "texts": []}]
    cache = LatentCache(make_cache(tmp_path, captions, first=latents[:2], second=latents[2:, :7]))
    assert is_latent_cache(tmp_path) and len(cache) == 3 and cache.lengths == [10, 10, 7]
    assert cache.captions == [["a"], ["b", "c"], ["d"]]
    assert cache[request(clip=1, start=2, num_frames=3, stride=2)]["latents"].flatten().tolist() == [12, 14, 16]
    assert cache[request(clip=2, start=3, num_frames=4)]["latents"].flatten().tolist() == [23, 24, 25, 26]
    assert "latents-00001.safetensors, clip 0" in cache.name(2)


def test_the_documented_layout_is_read(tmp_path):
    # By its own names, so that caches of earlier versions and other programs stay readable.
    save_file({"latents": torch.full((2, 6, 4, 2, 2), 0.5).half()}, tmp_path / "latents-00000.safetensors")
    save_file({"first_frames": torch.zeros(2, 3, 3, 16, 16).byte()}, tmp_path / "first_frames-00000.safetensors")
    (tmp_path / "captions.jsonl").write_text('{"text": "mist"}\n{"text": "rain", "texts": ["雨"]}\n', encoding="utf-8")
    cache = LatentCache(tmp_path)
    assert cache.captions == [["mist"], ["rain", "雨"]] and cache.latent_shape == (4, 2, 2)
    assert torch.equal(cache[request(clip=1)]["latents"], torch.full((4, 4, 2, 2), 0.5))
    assert WithFirstFrames(cache, None).image_size == (16, 16)


def test_folders_that_are_no_latent_caches_are_rejected(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no latents"):
        LatentCache(tmp_path)
    latents = torch.zeros(2, 8, 4, 2, 2)
    with pytest.raises(ValueError, match="must have a line for each of the 2 clips, got 1"):
        LatentCache(make_cache(tmp_path / "captions", [{"text": "a"}], shard=latents))
    with pytest.raises(ValueError, match="differ in shape"):
        LatentCache(make_cache(tmp_path / "shapes", [{"text": "a"}] * 4, one=latents, two=latents[..., :1]))
    broken = make_cache(tmp_path / "broken", [{"text": "a"}] * 2, shard=latents)
    shard = broken / "latents-00000.safetensors"
    shard.write_bytes(shard.read_bytes()[:-10])
    with pytest.raises(ValueError, match="latents-00000.safetensors is damaged"):
        LatentCache(broken)
    for tensors, message in (
        ({"latents": latents}, r"must be F16, \(clips, .* got F32"),
        ({"latents": latents[0].half()}, r"got F16, \(8, 4, 2, 2\)"),
        ({"moments": latents.half()}, r"single tensor 'latents', got \['moments'\]"),
    ):
        save_file(tensors, shard)
        with pytest.raises(ValueError, match=message):
            LatentCache(broken)


# The automatic cache


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

    monkeypatch.setattr(latent_store, "encode_frames", counting)
    return calls


def cached(videos: VideoDataset, vae: torch.nn.Module, cache_dir: Path) -> LatentClips:
    cache = AutomaticCache(videos, vae, cache_dir)
    cache.encode()
    return cache.clips()


def test_each_clip_is_encoded_once_and_read_as_the_video_would_be(folder, tmp_path, encoded):
    torch.manual_seed(0)
    videos, vae = VideoDataset(folder, 32), build_vae()
    clips = cached(videos, vae, tmp_path / "cache")
    assert encoded == [24] * 3 and len(clips) == 3
    assert clips.lengths == videos.lengths and clips.captions == videos.captions and clips.name(1) == videos.name(1)
    wanted = request(clip=1, start=2, stride=3, num_frames=5)
    expected = encode_frames(vae, videos[wanted]["pixel_values"])
    torch.testing.assert_close(clips[wanted]["latents"], expected, atol=2e-3, rtol=2e-3)

    again = cached(VideoDataset(folder, 32), vae, tmp_path / "cache")
    assert encoded == [24] * 3 and torch.equal(again[wanted]["latents"], clips[wanted]["latents"])


def test_a_changed_video_is_encoded_again_and_no_other(folder, tmp_path, encoded):
    torch.manual_seed(0)
    vae = build_vae()
    cached(VideoDataset(folder, 32), vae, tmp_path / "cache")
    write_noise(folder / "1.mp4", seed=7)
    (folder / "0.mp4").rename(folder / "renamed.mp4")  # the same bytes elsewhere
    metadata = folder / "metadata.jsonl"
    metadata.write_text(metadata.read_text().replace("0.mp4", "renamed.mp4"))
    encoded.clear()
    clips = cached(VideoDataset(folder, 32), vae, tmp_path / "cache")
    assert encoded == [24] and clips.name(0).endswith("renamed.mp4")


@pytest.mark.parametrize("change", ["resolution", "vae"])
def test_a_changed_setting_encodes_everything_again(folder, tmp_path, encoded, change):
    torch.manual_seed(0)
    vae = build_vae()
    cached(VideoDataset(folder, 32), vae, tmp_path / "cache")
    encoded.clear()
    if change == "vae":
        vae.quant_conv.weight.data[0, 0] += 1
    cached(VideoDataset(folder, 64 if change == "resolution" else 32), vae, tmp_path / "cache")
    assert encoded == [24] * 3


def test_processes_share_the_work(folder, tmp_path, encoded):
    torch.manual_seed(0)
    vae, videos = build_vae(), VideoDataset(folder, 32)
    first = AutomaticCache(videos, vae, tmp_path / "cache")
    first.encode(process_index=0, num_processes=2)
    share = set(first.store.shards)
    assert len(share) == len(encoded) == 2
    # Whether the second process looks before the first has written, or after it: it encodes what the first leaves.
    for cache_dir in (tmp_path / "second", tmp_path / "cache"):
        del encoded[len(share) :]
        second = AutomaticCache(videos, vae, cache_dir)
        second.encode(process_index=1, num_processes=2)
        assert (
            len(encoded) == 3
            and {name for name in first.names if name in second.store.shards} >= {*first.names} - share
        )
    assert len(first.clips()) == 3


def test_machines_with_folders_of_their_own_are_told(folder, tmp_path, encoded):
    torch.manual_seed(0)
    cache = AutomaticCache(VideoDataset(folder, 32), build_vae(), tmp_path / "own")
    cache.encode(process_index=1, num_processes=2)
    with pytest.raises(ValueError, match=r"own lacks 2 clips .* must share one folder"):
        cache.clips()


def test_caches_of_earlier_versions_are_read(folder, tmp_path, encoded):
    torch.manual_seed(0)
    vae, videos = build_vae(), VideoDataset(folder, 32)
    # As earlier versions wrote them: the names say what the latents belong to.
    digest = hashlib.sha256()
    settings = {name: value for name, value in vae.config.items() if not name.startswith("_")}
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, tensor in sorted(vae.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy())
    settings = {"format": 1, "vae": digest.hexdigest(), "resolution": 32}
    settings_hash = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    directory = tmp_path / "cache" / f"latents-{settings_hash[:32]}"
    directory.mkdir(parents=True)
    names = [hashlib.sha256((folder / f"{number}.mp4").read_bytes()).hexdigest() for number in range(3)]
    stored = {name: torch.full((24, 4, 4, 4), float(number)).half() for number, name in enumerate(names)}
    save_file(stored, directory / f"shard-{'0' * 32}.safetensors")

    clips = cached(videos, vae, tmp_path / "cache")
    assert not encoded and [clips[request(number)]["latents"].mean().item() for number in range(3)] == [0, 1, 2]


def test_what_does_not_fit_is_found_before_anything_is_encoded(train, folder, tmp_path, encoded):
    cache = ("--cache_dir", str(tmp_path / "cache"), "--resolution", "64")
    code, output = train("long", "--num_frames_range", "6", "--motion_max_seq_length", "4", *cache, data=folder)
    assert code == 1 and "must end at 4 or less" in status_of(output)["reason"]
    assert not encoded


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
