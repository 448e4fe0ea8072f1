"""Caches of latents, captions, and who gets which frames of a clip. Videos have `test_video_dataset.py`."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from landscape_video.training.data.clip_sampling import ClipBatchSampler, ClipRequest, TimestepBias
from landscape_video.training.data.latent_cache import LatentCache, encode_videos, is_latent_cache, write_shard
from landscape_video.training.data.latent_cache import run as encode
from landscape_video.training.data.latents import encode_frames
from landscape_video.training.data.prompt_embeds_cache import TextStates
from landscape_video.training.data.video_dataset import VideoDataset
from tiny_models import build_text_encoder, build_tokenizer, build_vae
from video_files import make_video_folder


def request(clip: int = 0, start: int = 0, num_frames: int = 4, stride: int = 1) -> ClipRequest:
    return ClipRequest(clip, start, stride, num_frames, text="", timestep=0, noise_seed=0)


# Caches of latents


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_video_folder(tmp_path_factory.mktemp("videos"), [20, 9])


def test_encoding_a_folder_gives_the_latents_that_training_would_compute(folder, tmp_path):
    videos, vae = VideoDataset(folder, resolution=32), build_vae()
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


def test_paces_are_drawn_for_clips_with_a_caption_and_change_nothing_else():
    as_they_are = [request for batch in make_sampler(last_step=400) for request in batch]
    requests = [request for batch in make_sampler(last_step=400, slow_motion_prob=0.6) for request in batch]
    assert [replace(request, pace=1.0) for request in requests] == as_they_are
    assert all(request.pace == 1 for request in requests if not request.text)
    slowed = [request.pace for request in requests if request.pace < 1]
    assert 0.54 < len(slowed) / sum(request.text != "" for request in requests) < 0.66
    assert 0 < min(slowed) < 0.02 and 0.98 < max(slowed) < 1 and 0.46 < np.mean(slowed) < 0.54


def test_some_slow_clips_stand_quite_still_and_the_others_keep_their_pace():
    def paces(**settings):
        sampler = make_sampler(last_step=400, slow_motion_prob=0.6, **settings)
        return np.array([request.pace for batch in sampler for request in batch])

    slowed, some_still = paces(), paces(standstill_prob=0.4)
    still = some_still == 0
    assert np.array_equal(some_still[~still], slowed[~still])
    assert (slowed[still] < 1).all() and 0.34 < still.sum() / (slowed < 1).sum() < 0.46


@pytest.mark.parametrize(("strategy", "ends"), [("later", range(900, 1000)), ("earlier", range(100))])
def test_biased_timesteps_come_as_often_as_said(strategy, ends):
    bias = TimestepBias(strategy, portion=0.1, multiplier=6)
    drawn = [bias.draw(np.random.default_rng(seed), 1000) for seed in range(3000)]
    assert min(drawn) >= 0 and max(drawn) <= 999
    share = np.mean([step in ends for step in drawn])
    assert abs(share - 6 * 0.1 / (6 * 0.1 + 0.9)) < 0.03  # three standard errors of 3,000 draws
    inside = [step for step in drawn if step in ends]
    assert abs(np.mean(inside) - np.mean(ends)) < 4  # and evenly within that end


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
