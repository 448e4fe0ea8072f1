"""Convert AnimateDiff's files to ours and back: the same tensors under other names, and nothing else."""

import json

import pytest
import torch
from diffusers import MotionAdapter
from safetensors.torch import load_file, save_file

from animatediff_files import animatediff_weights, equal
from motion_adapter.convert import load_animatediff, save_animatediff
from tiny_models import build_motion_adapter


def plain_config(adapter: MotionAdapter) -> dict:
    """As JSON has it: tuples and lists are the same."""
    return json.loads(json.dumps({name: value for name, value in adapter.config.items() if name[0] != "_"}))


@pytest.mark.parametrize("mid_block", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_file_of_animatediff_comes_back_the_same(tmp_path, mid_block, dtype):
    weights = {name: weight.to(dtype) for name, weight in animatediff_weights(mid_block=mid_block).items()}
    save_file(weights, tmp_path / "mm.safetensors")
    adapter = load_animatediff(tmp_path / "mm.safetensors")
    assert adapter.config.motion_max_seq_length == 24
    assert tuple(adapter.config.block_out_channels) == (32, 64)
    assert adapter.config.use_motion_mid_block is mid_block
    assert "sparse_causal_mode" not in adapter.config
    assert adapter.config.motion_norm == "frame", "AnimateDiff trained with the statistics of each frame"
    adapter.save_pretrained(tmp_path / "adapter")
    again = MotionAdapter.from_pretrained(tmp_path / "adapter", dtype=dtype)
    assert again.config.motion_norm == "frame"
    save_animatediff(again, tmp_path / "back.safetensors")
    assert equal(load_file(tmp_path / "back.safetensors"), weights)


def test_heads_which_no_weight_tells(tmp_path):
    save_file(animatediff_weights(mid_block=False), tmp_path / "mm.safetensors")
    assert load_animatediff(tmp_path / "mm.safetensors").config.motion_num_attention_heads == 8
    adapter = load_animatediff(tmp_path / "mm.safetensors", motion_num_attention_heads=4)
    assert adapter.config.motion_num_attention_heads == 4
    assert adapter.down_blocks[0].motion_modules[0].transformer_blocks[0].attn1.heads == 4


def test_weights_land_where_diffusers_own_converter_puts_them(tmp_path):
    # An independent reading of the layout; it wants a config of the same shape, and leaves the positions out.
    weights = animatediff_weights(mid_block=True)
    save_file(weights, tmp_path / "mm.safetensors")
    adapter = load_animatediff(tmp_path / "mm.safetensors")
    adapter.save_config(tmp_path / "config")
    theirs = MotionAdapter.from_single_file(str(tmp_path / "mm.safetensors"), config=str(tmp_path / "config"))
    ours = {name: weight for name, weight in adapter.state_dict().items() if not name.endswith("pos_embed.pe")}
    assert equal(ours, {name: weight for name, weight in theirs.state_dict().items() if name in ours})


@pytest.mark.parametrize(("mode", "norm"), [(None, None), ("first_previous", "clip"), ("previous", "frame")])
@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"use_motion_mid_block": True, "motion_transformer_layers_per_mid_block": 2},
        {"motion_layers_per_block": (1, 2), "motion_transformer_layers_per_block": (2, 1)},
    ],
    ids=["plain", "mid block", "uneven"],
)
def test_an_adapter_of_ours_comes_back_the_same(tmp_path, mode, norm, shape):
    adapter = build_motion_adapter(mode, norm, **shape)
    adapter.register_to_config(removed_attentions=["versatile"])
    save_animatediff(adapter, tmp_path / "ours.safetensors")
    again = load_animatediff(tmp_path / "ours.safetensors")
    assert equal(again.state_dict(), adapter.state_dict())
    assert plain_config(again) == plain_config(adapter) and again.config.get("motion_norm") == norm
    weights = load_file(tmp_path / "ours.safetensors")
    (one, other) = (f"transformer_blocks.0.attention_blocks.{index}.pos_encoder.pe" for index in (0, 1))
    module = "down_blocks.0.motion_modules.0.temporal_transformer"
    assert torch.equal(weights[f"{module}.{one}"], weights[f"{module}.{other}"])  # ComfyUI reads the length off them


def test_a_file_in_diffusers_layout_is_read_too(tmp_path):
    save_file(animatediff_weights(), tmp_path / "mm.safetensors")
    adapter = load_animatediff(tmp_path / "mm.safetensors")
    save_file(adapter.state_dict(), tmp_path / "ours.safetensors")
    again = load_animatediff(tmp_path / "ours.safetensors")
    assert equal(again.state_dict(), adapter.state_dict())
    # Nothing tells who trained a file in this layout: it runs as in diffusers.
    assert plain_config(adapter) == plain_config(again) | {"motion_norm": "frame"}
    assert "motion_norm" not in again.config


@pytest.mark.parametrize("norm", ["clip", "frame"])
def test_a_given_norm_counts_before_that_of_the_file(tmp_path, norm):
    save_file(animatediff_weights(), tmp_path / "mm.safetensors")
    save_animatediff(build_motion_adapter(motion_norm="clip"), tmp_path / "ours.safetensors")
    for file in ("mm.safetensors", "ours.safetensors"):
        assert load_animatediff(tmp_path / file, motion_norm=norm).config.motion_norm == norm
    with pytest.raises(ValueError, match="`motion_norm` must be one of clip, frame, got 'batch'"):
        load_animatediff(tmp_path / "mm.safetensors", motion_norm="batch")


@pytest.mark.parametrize("wrap", [False, True])
def test_checkpoints_of_training_have_module_before_each_name(tmp_path, wrap):
    weights = animatediff_weights()
    content = {f"module.{name}": weight for name, weight in weights.items()}
    if wrap:
        content = {"epoch": 3, "global_step": 100, "state_dict": content}
    torch.save(content, tmp_path / "conclvd.ckpt")
    save_file(weights, tmp_path / "mm.safetensors")
    adapter = load_animatediff(tmp_path / "conclvd.ckpt", sparse_causal_mode="previous")
    assert equal(adapter.state_dict(), load_animatediff(tmp_path / "mm.safetensors").state_dict())
    assert adapter.config.sparse_causal_mode == "previous"


def test_position_tables_are_the_formula_where_a_file_has_none(tmp_path):
    weights = {name: weight for name, weight in animatediff_weights().items() if "pos_encoder" not in name}
    save_file(weights, tmp_path / "lcm.safetensors")
    with pytest.raises(ValueError, match="lcm.safetensors: has no position tables: set `motion_max_seq_length`"):
        load_animatediff(tmp_path / "lcm.safetensors")
    adapter = load_animatediff(tmp_path / "lcm.safetensors", motion_max_seq_length=20)
    (table, *_) = (buffer for name, buffer in adapter.named_buffers() if name.endswith("pos_embed.pe"))
    assert table.shape == (1, 20, 32)
    torch.testing.assert_close(table[0, :, 0], torch.sin(torch.arange(20.0)))


# What is refused


def damaged(change) -> dict[str, torch.Tensor]:
    weights = animatediff_weights()
    change(weights)
    return weights


FIRST = "down_blocks.0.motion_modules.0.temporal_transformer"
SECOND = "down_blocks.0.motion_modules.1.temporal_transformer"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.update({"hello.weight": torch.ones(1), "there": torch.ones(1)}), "2 names.* hello.weight, there"),
        (lambda w: w.update({f"{FIRST}.transformer_blocks.0.cc_projection.weight": torch.ones(1)}), "cc_projection"),
        (lambda w: w.update({"conv_in.weight": torch.ones(1)}), "conv_in.weight.* image layers of a whole UNet"),
        (lambda w: w.pop(f"{FIRST}.proj_in.bias"), "1 missing: down_blocks.0.motion_modules.0.proj_in.bias"),
        (lambda w: w.update({f"{FIRST}.proj_in.bias": torch.ones(3)}), r"proj_in.bias \(3,\), not \(32,\)"),
        (lambda w: w.update({f"{FIRST}.proj_in.bias": torch.full((32,), torch.nan)}), "not finite in .*proj_in.bias"),
        (lambda w: w.update({f"{FIRST}.proj_in.wait": torch.ones(32)}), "1 names are not .*proj_in.wait"),
        (
            lambda w: w[f"{FIRST}.transformer_blocks.0.attention_blocks.1.pos_encoder.pe"].add_(1),
            f"position tables of {FIRST}.transformer_blocks.0 differ",
        ),
        (lambda w: w.clear(), "holds no motion modules"),
        (
            lambda w: w.update({f"{SECOND}.norm.weight": torch.ones(33)}),
            "32 norm groups and 8 heads, got 33",
        ),
        (
            lambda w: [w.pop(name) for name in list(w) if name.startswith("down_blocks.0.")],
            "of some down blocks",
        ),
    ],
)
def test_what_is_not_whole_is_refused_by_name(tmp_path, change, message):
    torch.save(damaged(change), tmp_path / "mm.ckpt")
    with pytest.raises(ValueError, match=rf"mm\.ckpt.*{message}"):
        load_animatediff(tmp_path / "mm.ckpt")


def test_many_unknown_names_are_counted(tmp_path):
    weights = animatediff_weights() | {f"other.{index:02}": torch.ones(1) for index in range(11)}
    save_file(weights, tmp_path / "mm.safetensors")
    with pytest.raises(ValueError, match=r"11 names are not AnimateDiff's: other.00, .*other.07 and 3 more"):
        load_animatediff(tmp_path / "mm.safetensors")


def test_image_layers_are_dropped_when_asked_to_and_nothing_else_is(tmp_path):
    image = {
        "conv_in.weight": torch.ones(1),
        "time_embedding.linear_1.bias": torch.ones(1),
        "down_blocks.0.resnets.0.conv1.weight": torch.ones(1),
        "mid_block.attentions.0.norm.weight": torch.ones(1),
    }
    torch.save({"state_dict": animatediff_weights() | image}, tmp_path / "unet.ckpt")
    adapter = load_animatediff(tmp_path / "unet.ckpt", drop_image_layers=True)
    save_file(animatediff_weights(), tmp_path / "mm.safetensors")
    assert equal(adapter.state_dict(), load_animatediff(tmp_path / "mm.safetensors").state_dict())
    torch.save(animatediff_weights() | image | {"lora.down": torch.ones(1)}, tmp_path / "unet.ckpt")
    with pytest.raises(ValueError, match="1 names are not AnimateDiff's: lora.down"):
        load_animatediff(tmp_path / "unet.ckpt", drop_image_layers=True)


class RunsCode:
    """What a malicious checkpoint does: unpickling it writes a file."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


def test_a_pickle_runs_no_code(tmp_path):
    torch.save({**animatediff_weights(), "x": RunsCode(tmp_path / "ran")}, tmp_path / "evil.ckpt")
    with pytest.raises(ValueError, match=r"evil.ckpt: is damaged or holds more than tensors"):
        load_animatediff(tmp_path / "evil.ckpt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "must hold a dictionary of tensors, got a list"),
        ({"state_dict": [1, 2]}, "must hold a dictionary of tensors, got a list"),
        ({"state_dict": {}, "optimizer": {}}, "has entries that are not tensors: optimizer"),
        ({"step": 3}, "has entries that are not tensors: step"),
    ],
)
def test_other_pickles_are_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "mm.ckpt")
    with pytest.raises(ValueError, match=f"mm.ckpt: {message}"):
        load_animatediff(tmp_path / "mm.ckpt")


def test_damaged_files_are_refused(tmp_path):
    save_file(animatediff_weights(), tmp_path / "whole.safetensors")
    whole = (tmp_path / "whole.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "cut.ckpt").write_bytes(b"PK\x03\x04nothing")
    (tmp_path / "notes.txt").write_text("")
    for name, message in (
        ("cut.safetensors", "not a complete safetensors file"),
        ("cut.ckpt", "is damaged"),
        ("notes.txt", "must end in .safetensors or one of .ckpt"),
    ):
        with pytest.raises(ValueError, match=f"{name}: {message}"):
            load_animatediff(tmp_path / name)


def test_what_animatediff_has_no_place_for_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no names for 2 weights: conv_in.bias, conv_in.weight"):
        save_animatediff(build_motion_adapter(conv_in_channels=9), tmp_path / "pia.safetensors")
    with pytest.raises(ValueError, match=r"mm.ckpt: must end in .safetensors"):
        save_animatediff(build_motion_adapter(), tmp_path / "mm.ckpt")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def save(weights, file, metadata):
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("motion_adapter.convert.save_weights", save)
    with pytest.raises(OSError, match="No space left"):
        save_animatediff(build_motion_adapter(), tmp_path / "mm.safetensors")
    assert not list(tmp_path.iterdir())
