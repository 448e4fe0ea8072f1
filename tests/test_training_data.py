"""Where training clips come from: folders of videos, caches of latents, and who gets which frames of them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from clip_sampling import ClipBatchSampler, ClipRequest
from latent_cache import LatentCache, encode_videos, is_latent_cache, write_shard
from latent_cache import run as encode
from motion_models import encode_frames
from pipeline_landscape_video.video_io import write_video
from text_states import TextStates
from tiny_models import build_text_encoder, build_tokenizer, build_vae
from video_dataset import VideoFolder


def request(clip: int = 0, start: int = 0, num_frames: int = 4, stride: int = 1) -> ClipRequest:
    return ClipRequest(clip, start, stride, num_frames, text="", timestep=0, noise_seed=0)


# Folders of videos


def make_clip(num_frames: int, height: int = 48, width: int = 64, brightness: int = 8) -> np.ndarray:
    """Frame i is of the grey level i * brightness, dark outside a square in the middle."""
    frames = np.zeros((num_frames, height, width, 3), np.uint8)
    side = (width - height) // 2
    frames[:, :, side : side + height] = np.arange(num_frames)[:, None, None, None] * brightness
    return frames


def make_folder(directory: Path, lengths: list[int], **rows: list) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, length in enumerate(lengths):
        write_video(directory / f"{number}.mp4", make_clip(length), fps=8)
        lines.append(json.dumps({"file_name": f"{number}.mp4", "text": f"clip {number}", "texts": [f"片{number}"]}))
    (directory / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return directory


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_folder(tmp_path_factory.mktemp("videos"), [20, 9])


def test_video_folder_reads_captions_and_lengths(folder):
    videos = VideoFolder(folder, resolution=32)
    assert videos.captions == [["clip 0", "片0"], ["clip 1", "片1"]] and videos.lengths == [20, 9]
    assert videos.name(1) == str(folder / "1.mp4")


def test_frames_come_at_the_asked_stride_in_the_asked_size(folder):
    item = VideoFolder(folder, resolution=32)[request(start=3, num_frames=4, stride=5)]
    clip = item["pixel_values"]
    assert clip.shape == (4, 3, 32, 32) and -1 <= clip.min() and clip.max() <= 1
    expected = torch.tensor([3, 8, 13, 18]) * 8 / 127.5 - 1
    # The frame is wider than high: resized to 32 in height, cropped in the middle, the dark sides are gone.
    torch.testing.assert_close(clip[:, :, 8:24, 2:30].mean(dim=(1, 2, 3)), expected, atol=0.03, rtol=0)


def test_every_unusable_video_is_named(tmp_path):
    folder = make_folder(tmp_path, [12, 12, 12])
    (folder / "1.mp4").write_bytes((folder / "1.mp4").read_bytes()[:400])
    (folder / "2.mp4").unlink()
    with pytest.raises(ValueError, match="2 of 3 videos") as error:
        VideoFolder(folder)
    assert "1.mp4" in str(error.value) and "2.mp4" in str(error.value) and "0.mp4" not in str(error.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "a"}', "line 2: `file_name` is missing"),
        ('{"file_name": "0.mp4"}', "line 2: `text` is missing"),
        ('{"file_name": "0.mp4", "text": "  "}', "line 2: every caption"),
        ('{"file_name": "0.mp4", "text": "a", "texts": "b"}', "line 2: .*`texts` is no list"),
        ('{"file_name": "0.mp4", "text": 5}', "line 2: every caption"),
        ('{"file_name": "../0.mp4", "text": "a"}', "line 2: '../0.mp4' lies outside"),
        ('{"file_name": "/etc/passwd", "text": "a"}', "line 2: '/etc/passwd' lies outside"),
        ('["0.mp4", "a"]', "line 2: has to be an object"),
        ('{"file_name": "0.mp4", "text"', "line 2: not JSON"),
    ],
)
def test_wrong_metadata_is_named_by_line(tmp_path, line, message):
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "0.mp4", "text": "a"}\n' + line + "\n")
    with pytest.raises(ValueError, match=message):
        VideoFolder(tmp_path)


def test_metadata_has_to_be_there_and_utf8(tmp_path):
    with pytest.raises(FileNotFoundError, match="neither a metadata.jsonl nor a latent cache"):
        VideoFolder(tmp_path)
    (tmp_path / "metadata.jsonl").write_bytes('{"file_name": "0.mp4", "text": "café"}'.encode("latin-1"))
    with pytest.raises(ValueError, match="has to be UTF-8"):
        VideoFolder(tmp_path)


def test_a_byte_order_mark_is_no_part_of_the_metadata(tmp_path):
    folder = make_folder(tmp_path, [9])
    path = folder / "metadata.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert VideoFolder(folder).captions == [["clip 0", "片0"]]


# Caches of latents


def test_encoding_a_folder_gives_the_latents_that_training_would_compute(folder, tmp_path):
    videos, vae = VideoFolder(folder, resolution=32), build_vae()
    encode_videos(videos, vae, tmp_path / "cache", sample_stride=2)
    cache = LatentCache(tmp_path / "cache")
    assert cache.latent_shape == (4, 4, 4)
    assert cache.lengths == [5, 10] and cache.captions == [["clip 1", "片1"], ["clip 0", "片0"]]
    expected = encode_frames(vae, videos.read(0, start=2, num_frames=3, stride=6))
    item = cache[request(clip=1, start=1, num_frames=3, stride=3)]
    torch.testing.assert_close(item["latents"], expected, atol=2e-3, rtol=2e-3)


def test_encoding_from_the_command_line(folder, tmp_path, caplog):
    build_vae().save_pretrained(tmp_path / "model" / "vae")
    flags = ["--pretrained_model_name_or_path", str(tmp_path / "model"), "--train_data_dir", str(folder)]
    flags += ["--output_dir", str(tmp_path / "cache"), "--resolution", "32"]
    assert encode([*flags, "--num_frames", "12"]) == 1
    assert "1.mp4: 9 frames, but 12" in caplog.text and not (tmp_path / "cache").exists()
    assert encode([*flags, "--num_frames", "8"]) == 0
    assert LatentCache(tmp_path / "cache").lengths == [8, 8]
    with pytest.raises(SystemExit, match="2"):
        encode(flags)


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


def test_a_cache_that_is_not_one_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no latents"):
        LatentCache(tmp_path)
    latents = torch.zeros(2, 8, 4, 2, 2)
    with pytest.raises(ValueError, match="has 1 lines, but the shards hold 2 clips"):
        LatentCache(make_cache(tmp_path / "captions", [{"text": "a"}], shard=latents))
    with pytest.raises(ValueError, match="differ in shape"):
        LatentCache(make_cache(tmp_path / "shapes", [{"text": "a"}] * 4, one=latents, two=latents[..., :1]))
    broken = make_cache(tmp_path / "broken", [{"text": "a"}] * 2, shard=latents)
    shard = broken / "latents-00000.safetensors"
    shard.write_bytes(shard.read_bytes()[:-10])
    with pytest.raises(ValueError, match="latents-00000.safetensors is damaged"):
        LatentCache(broken)
    for tensors, message in (
        ({"latents": latents}, "is F32 of shape"),
        ({"latents": latents[0].half()}, r"is F16 of shape \[8, 4, 2, 2\]"),
        ({"moments": latents.half()}, r"holds the tensors \['moments'\]"),
    ):
        save_file(tensors, shard)
        with pytest.raises(ValueError, match=message):
            LatentCache(broken)


# Who gets what


class Clips:
    """Clips by length only."""

    def __init__(self, lengths: list[int]) -> None:
        self.lengths = lengths
        self.captions = [[f"{number}a", f"{number}b"] for number in range(len(lengths))]

    def name(self, clip: int) -> str:
        return f"clip {clip}"


def make_sampler(lengths: list[int] | None = None, **arguments) -> ClipBatchSampler:
    defaults = {
        "seed": 0,
        "batch_size": 2,
        "num_frames_range": (4, 8),
        "stride_range": (1, 3),
        "caption_dropout_prob": 0.25,
        "num_train_timesteps": 1000,
        "first_step": 0,
        "last_step": 50,
    }
    return ClipBatchSampler(Clips(lengths or [40, 22, 30, 25, 60]), **(defaults | arguments))


def test_every_clip_comes_once_an_epoch_in_changing_order():
    requests = [request for batch in make_sampler() for request in batch]
    epochs = [[request.clip for request in requests[first : first + 5]] for first in range(0, 100, 5)]
    assert all(sorted(epoch) == [0, 1, 2, 3, 4] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 10


def test_draws_stay_in_their_ranges_and_reach_their_ends():
    sampler = make_sampler(last_step=400)
    requests = [request for batch in sampler for request in batch]
    assert {request.num_frames for request in requests} == {4, 5, 6, 7, 8}
    assert {request.stride for request in requests} == {1, 2, 3}
    assert {request.text for request in requests} == {""} | {f"{n}{letter}" for n in range(5) for letter in "ab"}
    assert 0.2 < np.mean([request.text == "" for request in requests]) < 0.3
    assert 400 < np.mean([request.timestep for request in requests]) < 600
    assert all(0 <= request.timestep < 1000 for request in requests)
    assert len({request.noise_seed for request in requests}) == len(requests)
    for drawn in requests:
        assert 0 <= drawn.start <= sampler.dataset.lengths[drawn.clip] - (drawn.num_frames - 1) * drawn.stride - 1
    tight = make_sampler([22], batch_size=1, num_frames_range=(8, 8), stride_range=(3, 3))
    assert all(batch[0].start == 0 for batch in tight)


def test_a_step_has_one_length():
    for batch in make_sampler(batch_size=8):
        assert len({request.num_frames for request in batch}) == 1


def test_a_later_start_continues_the_same_sequence():
    assert list(make_sampler())[37:] == list(make_sampler(first_step=37))
    assert len(make_sampler(first_step=37, accumulation_steps=2)) == 26


def test_seeds_differ():
    assert list(make_sampler(seed=1)) != list(make_sampler(seed=2))


def test_processes_share_what_accumulation_would_see():
    alone = list(make_sampler(accumulation_steps=2))
    first, second = (list(make_sampler(num_processes=2, process_index=index)) for index in (0, 1))
    assert alone[0::2] == first and alone[1::2] == second


def test_a_clip_too_short_is_named_with_what_it_takes():
    with pytest.raises(ValueError, match="clip 1: 21 frames, but 8 frames at a stride of 3 take at least 22"):
        make_sampler([40, 21, 30])


# Captions


def test_states_are_the_text_encoders_and_do_not_depend_on_the_batch():
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    encoder = build_text_encoder(tokenizer)
    states = TextStates(tokenizer, encoder)
    first = states(["misty mountains", ""])
    again = TextStates(tokenizer, encoder, cache_bytes=0)(["", "a boat", "misty mountains"])
    assert first.shape == (2, 77, 16) and not first.requires_grad
    assert torch.equal(first[0], again[2]) and torch.equal(first[1], again[0])
    assert torch.equal(states(["misty mountains"])[0], first[0])
    ids = tokenizer(["misty mountains"], padding="max_length", max_length=77, return_tensors="pt").input_ids
    torch.testing.assert_close(first[:1], encoder(ids)[0].detach())


def test_a_long_caption_is_cut_with_a_warning(caplog):
    tokenizer = build_tokenizer()
    states = TextStates(tokenizer, build_text_encoder(tokenizer))
    assert states(["mist " * 200]).shape == (1, 77, 16)
    states(["rain " * 200])
    assert caplog.text.count("cut after 77 tokens") == 1 and "mist mist" in caplog.text
