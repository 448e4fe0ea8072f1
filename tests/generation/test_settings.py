"""Settings: each value is checked by name, and one new field reaches flag, call and metadata."""

import types
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from diffusers import AutoencoderKL
from typer.testing import CliRunner

from landscape_video.cli.generate import generate as generate_command
from landscape_video.cli.options import Command, with_settings
from landscape_video.generation.setting_fields import choices, pipeline_arguments, setting
from landscape_video.generation.settings import (
    SAMPLING,
    ImageModelSettings,
    ImageToVideoSettings,
    TextToVideoSettings,
    VideoSettings,
)
from pipeline_landscape_video.video_io import read_metadata


@dataclass(frozen=True, kw_only=True)
class WithChunks(TextToVideoSettings):
    """One field more: an argument of the pipeline's call that is not offered so far."""

    chunk: int | None = setting(None, "Frames to decode at a time.", SAMPLING, argument="decode_chunk_size")


@pytest.fixture
def generate_with_chunks(models, tmp_path, monkeypatch):
    """Run the `generate` command of the program, with `WithChunks` in the place of its settings."""
    original = generate_command.__wrapped__
    command = types.FunctionType(original.__code__, original.__globals__, "generate", original.__defaults__)
    command.__doc__ = original.__doc__
    command.__annotations__ = original.__annotations__ | {"settings": WithChunks}
    app = typer.Typer()
    app.command(cls=Command)(with_settings(command))
    monkeypatch.chdir(tmp_path)
    sizes = ["--num-frames", "2", "--steps", "1", "--no-interpolate", "--seed", "3"]
    model = ["--model", str(models / "video"), "--device", "cpu"]
    return lambda *arguments: CliRunner().invoke(app, [*arguments, *([] if "--help" in arguments else sizes + model)])


def test_a_new_field_is_a_flag_reaches_the_pipeline_and_is_stored_in_the_clip(generate_with_chunks, monkeypatch):
    decoded = []
    decode = AutoencoderKL.decode

    def decode_and_count(vae: AutoencoderKL, latents: torch.Tensor) -> Any:
        decoded.append(len(latents))
        return decode(vae, latents)

    monkeypatch.setattr(AutoencoderKL, "decode", decode_and_count)
    text = generate_with_chunks("--help").output
    assert "--chunk" in text and "Frames to decode at a time." in text
    for output, arguments in (("whole", ()), ("chunks", ("--chunk", "1"))):
        result = generate_with_chunks("mist", "--output", output, *arguments)
        assert result.exit_code == 0, result.output
    assert decoded == [2, 1, 1]
    assert read_metadata("whole")["chunk"] is None and read_metadata("chunks")["chunk"] == 1


@pytest.mark.parametrize("settings_class", [ImageToVideoSettings, ImageModelSettings])
def test_every_setting_says_what_a_control_needs(settings_class):
    for each in fields(settings_class):
        assert each.metadata["help"].endswith("."), each.name
        assert each.metadata["panel"], each.name
        assert each.default is not None or each.metadata["default_text"], each.name
        assert each.metadata["unit"] or each.type is bool or choices(each.type), each.name


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_frames": 0}, "`num_frames` must be at least 1, got 0."),
        ({"height": 100}, "`height` must be a multiple of 8, got 100."),
        ({"width": 4}, "`width` must be at least 8, got 4."),
        ({"steps": 0}, "`steps` must be at least 1, got 0."),
        ({"eta": 1.5}, "`eta` must be from 0 to 1, got 1.5."),
        ({"eta": float("nan")}, "`eta` must be a finite number, got nan."),
        ({"guidance_scale": 0.0}, "`guidance_scale` must be greater than 0, got 0.0."),
        ({"seed": 2**63}, "`seed` must be from 0 to 9223372036854775807, got 9223372036854775808."),
        ({"sofp_mode": "cubic"}, "`sofp_mode` must be one of quadratic, projection, linear, got 'cubic'."),
        ({"flow_weights": Path("none.pth")}, "`flow_weights` must be a file, got none.pth: no such file."),
        ({"flow_weights": Path(__file__), "flow": "dis"}, "`flow_weights` are weights of RAFT, but `flow` is 'dis'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_value_out_of_range_is_named(values, message):
    with pytest.raises(ValueError) as caught:
        TextToVideoSettings(**values)
    assert str(caught.value).startswith(message)


def test_only_what_is_given_reaches_the_pipeline():
    settings = TextToVideoSettings(steps=7, seed=3, fps=12.0, flow="dis", eta=0.5)
    assert pipeline_arguments(settings) == {
        "num_frames": 16,
        "num_inference_steps": 7,
        "eta": 0.5,
        "interpolate": True,
        "sofp_mode": "quadratic",
        "context_schedule": "moved",
        "context_weights": "pyramid",
        "closed_loop": False,
        "prompt_per_window": False,
    }
    assert pipeline_arguments(replace(settings, steps=None), VideoSettings) == {"num_frames": 16}


def test_the_frame_rate_follows_the_interpolation():
    assert TextToVideoSettings().frame_rate == 16 and TextToVideoSettings(interpolate=False).frame_rate == 8
    assert TextToVideoSettings(fps=12.5).frame_rate == 12.5


def test_a_seed_is_drawn_only_if_none_is_given():
    assert TextToVideoSettings(seed=0).with_seed().seed == 0
    assert len({TextToVideoSettings().with_seed().seed for _ in range(3)}) == 3


def test_a_clip_that_no_memory_holds_is_refused():
    TextToVideoSettings(height=1080, width=1920).check_memory()
    with pytest.raises(ValueError, match="`num_frames`, `height` and `width` must be smaller: .* this machine has"):
        TextToVideoSettings(height=800_000, width=800_000).check_memory()
