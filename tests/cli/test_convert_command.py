"""Convert with `landscape-video convert`: both ways, every option, and errors of one line."""

import json
import re
from typing import get_args

import pytest
import torch
from diffusers import MotionAdapter
from safetensors.torch import load_file
from typer.testing import CliRunner

from animatediff_files import animatediff_weights, equal
from landscape_video.cli.convert import MotionNorm, SparseCausalMode
from landscape_video.cli.main import app
from motion_adapter.weights_files import METADATA
from pipeline_landscape_video.landscape_motion_attention import MOTION_NORMS, SPARSE_CAUSAL_MODES
from processes import largest_files
from tiny_models import build_motion_adapter


def run(*arguments: object):
    return CliRunner().invoke(app, ["convert", *map(str, arguments)])


def test_both_ways_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({f"module.{name}": weight for name, weight in animatediff_weights().items()}, "conclvd.ckpt")
    result = run("conclvd.ckpt", "adapter", "--sparse-causal-mode", "previous")
    assert result.exit_code == 0, result.output
    assert re.fullmatch(
        r"adapter: 0\.\d M parameters in torch.float32, clips of up to 24 frames, attention previous, norm frame\n",
        result.stdout,
    )
    result = run("adapter", "back.safetensors")
    assert result.exit_code == 0, result.output
    assert result.stderr == (
        "warning: trained with sparse_causal_mode 'previous' and motion_norm 'frame': diffusers' own pipelines run it "
        "with full attention and the norm of the clip; AnimateDiff and AnimateDiff-Evolved (ComfyUI) run it with full "
        "attention; in both, the queries and keys of the second attention are untrained.\n"
    )
    assert equal(load_file("back.safetensors"), animatediff_weights())
    from safetensors import safe_open

    with safe_open("back.safetensors", framework="pt") as file:
        config = json.loads(file.metadata()[METADATA])
    assert (config["sparse_causal_mode"], config["motion_norm"]) == ("previous", "frame")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "back.safetensors", "conclvd.ckpt"]


def test_modes_of_the_command_are_those_of_the_library():
    assert get_args(SparseCausalMode) == SPARSE_CAUSAL_MODES
    assert get_args(MotionNorm) == MOTION_NORMS


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.ckpt", "new"], "nothing.ckpt: no such file or folder."),
        (["mm.ckpt", "there"], "there: exists already; remove it, or choose another name."),
        (["mm.ckpt", "no/new"], "no/new: the folder no does not exist."),
        (["mm.ckpt", "new.safetensors"], "new.safetensors: the target for a file must be a folder"),
        (["mm.ckpt", "new"], "mm.ckpt: holds no motion modules."),
        (["there", "new"], "new: the target for a folder must end in .safetensors."),
        (["there", "new.safetensors"], "there: not a motion adapter: config.json is missing."),
        (["there", "new.safetensors", "--max-frames", "8"], "--max-frames is for files of AnimateDiff"),
        (["there", "new.safetensors", "--motion-norm", "clip"], "--motion-norm is for files of AnimateDiff"),
        (["there", "new.safetensors", "--drop-image-layers"], "--drop-image-layers is for files of AnimateDiff"),
    ],
)
def test_wrong_arguments_end_with_one_line_and_nothing_written(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    torch.save({}, "mm.ckpt")
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"landscape-video: {message}")
    assert result.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mm.ckpt", "there"]


@pytest.mark.parametrize(
    ("option", "changed"),
    [
        ("--max-frames", "12"),
        ("--drop-image-layers", None),
        ("--sparse-causal-mode", "full"),
        ("--motion-norm", "clip"),
    ],
)
def test_every_option_acts(tmp_path, monkeypatch, option, changed):
    monkeypatch.chdir(tmp_path)
    weights = animatediff_weights()
    if option == "--max-frames":
        weights = {name: weight for name, weight in weights.items() if "pos_encoder" not in name}
    if option == "--drop-image-layers":
        weights |= {"conv_in.weight": torch.ones(1)}
    torch.save(weights, "mm.ckpt")
    without = run("mm.ckpt", "without")
    result = run("mm.ckpt", "with", option, *([changed] if changed else []))
    assert result.exit_code == 0, result.output
    if option == "--sparse-causal-mode":
        assert MotionAdapter.load_config("with")["sparse_causal_mode"] == "full"
        assert "sparse_causal_mode" not in MotionAdapter.load_config("without")
    elif option == "--motion-norm":
        assert MotionAdapter.load_config("with")["motion_norm"] == "clip"
        assert MotionAdapter.load_config("without")["motion_norm"] == "frame"
    else:
        assert without.exit_code == 2


def test_a_disk_too_full_for_the_weights_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    build_motion_adapter().save_pretrained("adapter")
    with largest_files(2000):
        result = run("adapter", "back.safetensors")
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
    assert result.stderr.splitlines()[-1].startswith("landscape-video: weights cannot be written: ")
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]
