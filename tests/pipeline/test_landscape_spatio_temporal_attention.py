"""Sparse spatio-temporal attention equals its definition, in every state of a UNet; tuned weights in files."""

import copy
import pickle

import pytest
import torch
from diffusers import AnimateDiffPipeline, UNetMotionModel
from diffusers.models.attention_processor import Attention
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dense_attention import assert_close, build_motion_unet, build_pipelines, predict
from motion_adapter.build import create_motion_adapter
from motion_unets import predict_frame_by_frame
from pipeline_changes import IMAGE_PROMPT, load_ip_adapter
from pipeline_landscape_video.landscape_spatio_temporal_attention import (
    begin_step,
    has_spatio_temporal_attention,
    install_spatio_temporal_attention,
    load_tuned,
    remove_spatio_temporal_attention,
    save_tuned,
    set_frames,
    tuned_parameters,
)
from tiny_models import build_unet2d


def spatial_attentions(unet: UNetMotionModel) -> list[Attention]:
    transformers = [module for module in unet.modules() if isinstance(module, Transformer2DModel)]
    return [block.attn1 for transformer in transformers for block in transformer.transformer_blocks]


def read_two_frames(attention: Attention, hidden_states: torch.Tensor, num_frames: int) -> torch.Tensor:
    """The definition, frame by frame."""
    outputs = []
    for clip in hidden_states.unflatten(0, (-1, num_frames)):
        for index, frame in enumerate(clip):
            read = torch.cat([clip[0], clip[max(index - 1, 0)]])
            query, key, value = (
                layer(tokens).unflatten(-1, (attention.heads, -1)).transpose(0, 1)
                for layer, tokens in ((attention.to_q, frame), (attention.to_k, read), (attention.to_v, read))
            )
            weights = (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(-1)
            outputs.append(attention.to_out[0]((weights @ value).transpose(0, 1).flatten(1)))
    return torch.stack(outputs)


def make_reference(stock: UNetMotionModel, num_frames: int = 6) -> UNetMotionModel:
    for attention in spatial_attentions(stock):
        attention.register_forward_hook(lambda module, inputs, output: read_two_frames(module, inputs[0], num_frames))
    return stock


def tuned_unet(temporal_attention: str = "new") -> UNetMotionModel:
    """Return a motion UNet whose tuned weights are all random."""
    unet = build_motion_unet("previous")
    install_spatio_temporal_attention(unet, temporal_attention)
    generator = torch.Generator().manual_seed(5)
    for parameter in tuned_parameters(unet).values():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return unet


# The attention


def test_equal_frames_change_nothing():
    """The keys of a frame twice are attention to the frame itself."""
    unet, plain = (build_motion_unet("previous") for _ in range(2))
    install_spatio_temporal_attention(unet)
    attention, stock = spatial_attentions(unet)[0], spatial_attentions(plain)[0]
    tokens = torch.randn(2, 1, 9, 8, generator=torch.Generator().manual_seed(0)).expand(-1, 5, -1, -1).flatten(0, 1)
    unet.clip_frames.num_frames = 5
    assert_close(attention(tokens), stock(tokens), 1e-6)


def test_frame_0_reads_itself_and_others_do_not():
    unet, plain = (build_motion_unet("previous") for _ in range(2))
    install_spatio_temporal_attention(unet)
    attention, stock = spatial_attentions(unet)[0], spatial_attentions(plain)[0]
    tokens = torch.randn(5, 9, 8, generator=torch.Generator().manual_seed(0))
    unet.clip_frames.num_frames = 5
    assert_close(attention(tokens)[0], stock(tokens)[0], 1e-6)
    changed = tokens.clone()
    changed[2] += 1
    difference = (attention(changed) - attention(tokens)).abs().amax((1, 2))
    assert difference[2] > 0 and difference[3] > 0  # its own queries, and keys of the next frame
    assert not difference[[0, 1, 4]].any()


@pytest.mark.parametrize(
    "change",
    [
        lambda pipe: None,
        lambda pipe: pipe.unet.set_default_attn_processor(),
        lambda pipe: pipe.unet.fuse_qkv_projections(),
        lambda pipe: pipe.enable_attention_slicing(1),
        lambda pipe: pipe.disable_attention_slicing(),
        lambda pipe: pipe.unet.enable_gradient_checkpointing(),
    ],
)
def test_equals_its_definition_in_every_state(change):
    ours, stock = build_pipelines("full")
    install_spatio_temporal_attention(ours.unet)
    change(ours)
    change(stock)
    plain = predict(stock.unet)
    actual = predict(ours.unet)
    assert_close(actual, predict(make_reference(stock.unet)))
    assert (actual - plain).abs().max() > 1e-3


def test_survives_an_ip_adapter_and_from_pipe():
    ours, stock = build_pipelines("full")
    install_spatio_temporal_attention(ours.unet)
    for pipe in (ours, stock):
        load_ip_adapter(pipe)
    expected = predict(make_reference(stock.unet), added_cond_kwargs=IMAGE_PROMPT)
    assert_close(predict(ours.unet, added_cond_kwargs=IMAGE_PROMPT), expected)
    borrowed = AnimateDiffPipeline.from_pipe(ours)
    assert_close(predict(borrowed.unet, added_cond_kwargs=IMAGE_PROMPT), expected)


def test_survives_copy_and_pickle():
    unet = tuned_unet()
    expected = predict(unet)
    for other in (copy.deepcopy(unet), pickle.loads(pickle.dumps(unet))):
        predict(unet, num_frames=3)  # the copies count frames of their own
        assert torch.equal(predict(other), expected)
        remove_spatio_temporal_attention(other)
        assert torch.equal(predict(other), predict(build_motion_unet("previous")))
        assert torch.equal(predict(unet), expected)


def test_compiles_without_graph_breaks():
    torch.compiler.reset()
    unet = tuned_unet()
    assert_close(predict(torch.compile(unet, fullgraph=True, backend="eager")), predict(unet))


def test_a_new_temporal_attention_changes_nothing_until_it_is_tuned():
    unet = build_motion_unet("previous")
    install_spatio_temporal_attention(unet, "adapter")
    expected = predict(unet)
    remove_spatio_temporal_attention(unet)
    install_spatio_temporal_attention(unet, "new")
    assert torch.equal(predict(unet), expected)
    for name, parameter in tuned_parameters(unet).items():
        if "attn_temp.to_out" in name:
            parameter.data.normal_()
    assert (predict(unet) - expected).abs().max() > 1e-3


def test_removing_restores_the_model():
    unet = build_motion_unet("previous")
    expected, names = predict(unet), list(unet.state_dict())
    for temporal_attention in ("new", "adapter"):
        install_spatio_temporal_attention(unet, temporal_attention)
        for parameter in tuned_parameters(unet).values():
            parameter.data.normal_()
        remove_spatio_temporal_attention(unet)
        assert torch.equal(predict(unet), expected) and list(unet.state_dict()) == names
    assert not has_spatio_temporal_attention(unet)


def test_gradients_reach_the_tuned_parameters_only():
    unet = build_motion_unet("previous").requires_grad_(False)
    install_spatio_temporal_attention(unet)
    parameters = tuned_parameters(unet)
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    latents = torch.randn(1, 4, 3, 8, 8)
    unet(latents, 500, torch.randn(3, 5, 16)).sample.square().mean().backward()
    trained = {name for name, parameter in unet.named_parameters() if parameter.grad is not None}
    assert trained == parameters.keys()
    parts = {".".join(name.split(".transformer_blocks.0.")[1].split(".")[:2]) for name in parameters}
    assert parts == {
        "attn1.to_q", "attn2.to_q", "norm_temp.weight", "norm_temp.bias",
        "attn_temp.to_q", "attn_temp.to_k", "attn_temp.to_v", "attn_temp.to_out",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("argument", "message"), [("other", "must be one of new, adapter"), ("new", "not have sparse")]
)
def test_wrong_installations_are_refused(argument, message):
    unet = build_motion_unet("previous")
    if argument == "new":
        install_spatio_temporal_attention(unet)
    with pytest.raises(ValueError, match=message):
        install_spatio_temporal_attention(unet, argument)
    with pytest.raises(ValueError, match="must be a `UNetMotionModel`"):
        install_spatio_temporal_attention(build_unet2d())


def test_an_image_model_without_an_adapter_predicts_frame_by_frame():
    image_unet = build_unet2d()
    adapter = create_motion_adapter(
        image_unet, "full", motion_num_attention_heads=1, motion_transformer_layers_per_block=0
    )
    unet = UNetMotionModel.from_unet2d(image_unet, adapter).eval()
    generator = torch.Generator().manual_seed(1)
    latents, text = torch.randn(2, 4, 5, 8, 8, generator=generator), torch.randn(2, 7, 16, generator=generator)
    actual = unet(latents, 500, text.repeat_interleave(5, dim=0)).sample
    assert_close(actual, predict_frame_by_frame(image_unet))
    install_spatio_temporal_attention(unet)
    assert any("attn_temp" in name for name in tuned_parameters(unet))


# Windows


def windowed(unet: UNetMotionModel, hidden_states: torch.Tensor, windows: list[list[int]]) -> dict[int, torch.Tensor]:
    """Run the first spatial attention in windows; return the last output of each frame."""
    attention, outputs = spatial_attentions(unet)[0], {}
    begin_step(unet, windows)
    for window in windows:
        set_frames(unet, window)
        unet.clip_frames.num_frames = len(window)
        out = attention(hidden_states[:, window].flatten(0, 1)).unflatten(0, (-1, len(window)))
        outputs |= {position: out[:, place] for place, position in enumerate(window)}
    set_frames(unet, None)
    return outputs


@pytest.mark.parametrize(
    "windows",
    [[[0, 1, 2, 3], [3, 4, 5, 6], [5, 6, 7, 8]], [[0, 1, 2, 3], [2, 3, 4, 5], [5, 6, 7, 8]], [[0, 1], [2, 3], [4, 5]]],
)
def test_a_window_reads_the_first_and_the_previous_frame_of_the_clip(windows):
    unet = build_motion_unet("previous")
    install_spatio_temporal_attention(unet)
    hidden_states = torch.randn(2, 9, 7, 8, generator=torch.Generator().manual_seed(0))
    unet.clip_frames.num_frames = 9
    expected = spatial_attentions(unet)[0](hidden_states.flatten(0, 1)).unflatten(0, (2, 9))
    outputs = windowed(unet, hidden_states, windows)
    for position, output in outputs.items():
        assert_close(output, expected[:, position], 1e-6)
    assert not unet.clip_frames.cache


def test_memory_does_not_grow_with_the_windows():
    unet = build_motion_unet("previous")
    install_spatio_temporal_attention(unet)
    attention = spatial_attentions(unet)[0]
    windows = [[start + index for index in range(4)] for start in range(0, 30, 3)]
    begin_step(unet, windows)
    for window in windows:
        set_frames(unet, window)
        unet.clip_frames.num_frames = 4
        attention(torch.randn(4, 7, 8))
        assert len(unet.clip_frames.cache) <= 4  # keys and values of two frames


def test_windows_out_of_order_are_refused():
    unet = build_motion_unet("previous")
    install_spatio_temporal_attention(unet)
    begin_step(unet, [[0, 1, 2], [3, 4, 5]])
    set_frames(unet, [3, 4, 5])
    with pytest.raises(RuntimeError, match="frames 3 to 5 reads frame 0, which no earlier window has kept"):
        predict(unet, num_frames=3)


# Files


@pytest.mark.parametrize("temporal_attention", ["new", "adapter"])
def test_a_file_holds_what_was_tuned_and_nothing_else(temporal_attention, tmp_path):
    unet = tuned_unet(temporal_attention)
    save_tuned(unet, tmp_path / "tuned.safetensors", {"prompt": "mist"})
    with safe_open(tmp_path / "tuned.safetensors", "pt") as file:
        weights = {name for name in file.keys() if not name.startswith("base.")}
    assert weights == tuned_parameters(unet).keys()
    loaded = build_motion_unet("previous")
    metadata = load_tuned(loaded, tmp_path / "tuned.safetensors")
    assert metadata["prompt"] == "mist" and metadata["temporal_attention"] == temporal_attention
    assert_close(predict(loaded), predict(unet), 1e-2)  # saved in half precision
    load_tuned(loaded, tmp_path / "tuned.safetensors")  # replaces what it loaded before
    remove_spatio_temporal_attention(loaded)
    assert torch.equal(predict(loaded), predict(build_motion_unet("previous")))


def test_files_load_in_other_precisions(tmp_path):
    save_tuned(tuned_unet(), tmp_path / "tuned.safetensors")
    unet = build_motion_unet("previous").to(torch.bfloat16)
    load_tuned(unet, tmp_path / "tuned.safetensors")
    assert {parameter.dtype for parameter in unet.parameters()} == {torch.bfloat16}


def test_wrong_files_are_refused_and_change_nothing(tmp_path):
    path = tmp_path / "tuned.safetensors"
    save_tuned(tuned_unet(), path)
    other = build_motion_unet("previous")
    other.conv_in.weight.data += 0.1
    expected = predict(other)
    with pytest.raises(ValueError, match="tuned.safetensors was tuned on another model"):
        load_tuned(other, path)
    tensors = load_file(path)
    save_file(tensors, tmp_path / "plain.safetensors", {"format": "pt"})
    (tmp_path / "text.safetensors").write_text("no weights")
    for name in ("plain", "text", "missing"):
        with pytest.raises(ValueError, match=f"{name}.safetensors must be a file of tuned weights"):
            load_tuned(other, tmp_path / f"{name}.safetensors")
    assert torch.equal(predict(other), expected) and not has_spatio_temporal_attention(other)
