"""Depth of clips: files of every kind, the direction of depth models, and one scale for a whole clip."""

import cv2
import numpy as np
import pytest
import torch
from transformers import (
    DepthProConfig,
    DepthProForDepthEstimation,
    DepthProImageProcessor,
    DPTConfig,
    DPTForDepthEstimation,
    DPTImageProcessor,
)

from landscape_video.generation.depth import load_depth, normalize_depth, predict_depth
from pipeline_landscape_video.video_io import write_video


@pytest.fixture
def depth() -> np.ndarray:
    """Depth of 4 frames, 16 x 24: a slope that comes nearer."""
    return np.linspace(0, 1, 24, dtype=np.float32) * np.ones((4, 16, 1), np.float32) + np.arange(4)[:, None, None] / 4


@pytest.fixture
def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (4, 16, 24, 3)).astype(np.uint8)


def test_a_still_background_keeps_its_depth_when_an_object_comes_near():
    depth = torch.full((3, 1, 8, 8), 0.2)
    depth[:, :, :2] = 0.0
    for index, near in enumerate((0.3, 0.6, 1.0)):
        depth[index, 0, 4, 4] = near
    normalized = normalize_depth(depth)
    assert normalized.min() == -1 and normalized.max() == 1
    background = normalized[:, 0, 6]
    assert torch.equal(background[0], background[1]) and torch.equal(background[0], background[2])
    assert background[0, 0] == pytest.approx(-0.6)
    assert (normalized[:, 0, 4, 4].diff() > 0).all()


def test_a_flat_clip_has_no_depth_instead_of_noise():
    flat = torch.full((2, 1, 8, 8), 7.0) + 1e-7 * torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert not normalize_depth(flat).any()


@pytest.mark.parametrize("kind", ["png8", "png16", "npy", "npz", "video", "tiff"])
def test_files_of_depth(kind, depth, frames, tmp_path):
    expected = normalize_depth(torch.from_numpy(depth)[:, None])
    levels = {"png8": 255, "png16": 65535, "video": 255}.get(kind, 1)
    stored = depth / depth.max() * levels
    source = tmp_path / "depth"
    if kind.startswith(("png", "tiff")):
        source.mkdir()
        for index, image in enumerate(stored):  # 8, 9, 10, 11: not in the order of the alphabet
            dtype = {"png8": np.uint8, "png16": np.uint16, "tiff": np.float32}[kind]
            cv2.imwrite(
                str(source / f"{index + 8}.{'tiff' if kind == 'tiff' else 'png'}"), image.round(7).astype(dtype)
            )
    elif kind == "npy":
        source = source.with_suffix(".npy")
        np.save(source, depth.astype(np.float16))
    elif kind == "npz":
        source = source.with_suffix(".npz")
        np.savez_compressed(source, depth=depth)
    else:
        source = source.with_suffix(".mp4")
        write_video(source, np.repeat(stored[..., None], 3, axis=-1).astype(np.uint8), fps=4)
    tolerance = {"png8": 0.02, "video": 0.1}.get(kind, 0.002)
    torch.testing.assert_close(load_depth(source, frames), expected, atol=tolerance, rtol=0)


def test_depth_of_another_size_is_resized_and_of_another_shape_or_count_refused(depth, frames, tmp_path):
    np.save(tmp_path / "large.npy", depth.repeat(2, axis=1).repeat(2, axis=2))
    torch.testing.assert_close(
        load_depth(tmp_path / "large.npy", frames), normalize_depth(torch.from_numpy(depth)[:, None])
    )
    np.save(tmp_path / "wide.npy", depth.repeat(2, axis=2))
    with pytest.raises(ValueError, match="must have the aspect ratio of the clip, 24 x 16, got 48 x 16"):
        load_depth(tmp_path / "wide.npy", frames)
    np.save(tmp_path / "short.npy", depth[:3])
    with pytest.raises(ValueError, match="must have 4 frames, as the clip, got 3"):
        load_depth(tmp_path / "short.npy", frames)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.npy", None, "no such file or folder"),
        ("text.npy", b"depth", "does not load"),
        ("other.npz", {"flow": np.zeros(3)}, "does not load"),
        ("flat.npy", np.zeros((16, 24)), "must have the shape"),
        ("nan.npy", np.full((4, 16, 24), np.nan), "must be finite everywhere"),
        ("image.png", b"no image", "OpenCV cannot read it"),
        ("notes.txt", b"depth", "must be a folder of images, a video, .npy or .npz"),
    ],
)
def test_wrong_files_are_refused_in_one_line(name, content, message, frames, tmp_path):
    path = tmp_path / name
    if isinstance(content, dict):
        np.savez(path, **content)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content)
    with pytest.raises(ValueError, match=message) as error:
        load_depth(path, frames)
    assert "\n" not in str(error.value) and name in str(error.value)


def test_an_empty_folder_is_refused(frames, tmp_path):
    with pytest.raises(ValueError, match="no images"):
        load_depth(tmp_path, frames)


def test_the_depth_of_the_renderer_is_found_beside_the_clip(depth, frames, tmp_path):
    (tmp_path / "depth").mkdir()
    np.savez_compressed(tmp_path / "depth" / "clip_000000.npz", depth=depth)
    found = load_depth(None, frames, video=tmp_path / "clip_000000.mp4")
    torch.testing.assert_close(found, normalize_depth(torch.from_numpy(depth)[:, None]))


# Depth models. Their weights are random: what counts is where near and far are.


def save_dpt(folder) -> None:
    torch.manual_seed(0)
    config = DPTConfig(
        hidden_size=8, num_hidden_layers=4, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=8,
        backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8] * 4, fusion_hidden_size=8, is_hybrid=False,
    )  # fmt: skip
    DPTForDepthEstimation(config).save_pretrained(folder)
    DPTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)


def save_depth_pro(folder) -> None:
    torch.manual_seed(0)
    encoder = {
        "model_type": "dinov2", "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2,
        "image_size": 32, "patch_size": 8,
    }  # fmt: skip
    config = DepthProConfig(
        fusion_hidden_size=8, patch_size=32, intermediate_hook_ids=[1, 0], intermediate_feature_dims=[8, 8],
        scaled_images_ratios=[0.5, 1.0], scaled_images_overlap_ratios=[0.0, 0.2], scaled_images_feature_dims=[8, 8],
        image_model_config=encoder, patch_model_config=encoder, fov_model_config=encoder, use_fov_model=True,
    )  # fmt: skip
    DepthProForDepthEstimation(config).save_pretrained(folder)
    DepthProImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)


@pytest.mark.parametrize("save", [save_dpt, save_depth_pro])
def test_near_is_where_the_network_predicts_large_inverse_depth(save, frames, tmp_path):
    save(tmp_path)
    depth = predict_depth(str(tmp_path), frames)
    assert depth.shape == (4, 1, 16, 24)
    model_class = DPTForDepthEstimation if save is save_dpt else DepthProForDepthEstimation
    processor_class = DPTImageProcessor if save is save_dpt else DepthProImageProcessor
    inputs = processor_class.from_pretrained(tmp_path)(images=list(frames), return_tensors="pt")
    with torch.no_grad():
        raw = model_class.from_pretrained(tmp_path)(**inputs).predicted_depth  # inverse depth in both networks
    raw = torch.nn.functional.interpolate(raw.reshape(4, 1, *raw.shape[-2:]), size=(16, 24), mode="bilinear")
    for one, other in zip(depth, raw, strict=True):
        assert torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1] > 0.9
    normalized = load_depth(str(tmp_path), frames)
    assert normalized.min() == -1 and normalized.max() == 1


def test_a_folder_without_a_depth_model_is_refused(frames, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="does not load: "):
        load_depth(tmp_path, frames)
