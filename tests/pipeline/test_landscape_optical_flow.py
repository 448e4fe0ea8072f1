"""RAFT against the forward pass of torchvision, DIS against known motion, and loading both."""

import re
from importlib.util import find_spec

import pytest
import torch
import torch.nn.functional as F
from diffusers.utils import logging as diffusers_logging
from safetensors.torch import save_file
from torchvision.models.optical_flow import Raft_Large_Weights, Raft_Small_Weights, raft_large, raft_small

from pipeline_landscape_video import landscape_optical_flow
from pipeline_landscape_video.landscape_optical_flow import (
    FLOW_ESTIMATORS,
    DISFlowEstimator,
    RAFTFlowEstimator,
    load_flow_estimator,
)


UPDATES = 2


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return raft_small(weights=None).eval()


@pytest.fixture(scope="module")
def large():
    torch.manual_seed(0)
    return raft_large(weights=None).eval()


def random_frames(count, height, width, seed=0):
    frames = torch.rand(count, 3, height // 4 + 1, width // 4 + 1, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(frames, (height, width), mode="bilinear")


@torch.no_grad()
def one_by_one(model, frames, pairs):
    """torchvision's forward pass, a pair at a time."""
    flows = [model(frames[a : a + 1] * 2 - 1, frames[b : b + 1] * 2 - 1, UPDATES)[-1] for a, b in pairs]
    return torch.cat(flows)


@pytest.mark.parametrize("size, pairs", [("small", [(0, 1), (1, 0), (1, 2), (0, 2)]), ("large", [(0, 1), (1, 0)])])
def test_shared_encoders_give_the_flow_of_the_pair_by_pair_loop(size, pairs, request):
    model = request.getfixturevalue(size)
    frames = random_frames(max(max(pairs)) + 1, 128, 136)
    estimator = RAFTFlowEstimator(model, num_flow_updates=UPDATES)
    encoded = estimator.encode(frames)
    a, b = (list(indices) for indices in zip(*pairs, strict=True))
    expected = one_by_one(model, frames, pairs)
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(estimator.match(encoded[a], encoded[b], 128, 136), expected, rtol=1e-4, atol=1e-4)


def test_raft_chunks_change_nothing(small):
    frames = random_frames(3, 128, 128)
    whole = RAFTFlowEstimator(small, UPDATES)
    chunked = RAFTFlowEstimator(small, UPDATES, chunk_size=2)
    sizes = []
    hook = small.feature_encoder.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    flow = chunked(frames[[0, 1, 2]], frames[[1, 2, 0]])
    hook.remove()
    assert sizes == [2, 1, 2, 1]
    torch.testing.assert_close(flow, whole(frames[[0, 1, 2]], frames[[1, 2, 0]]), rtol=1e-4, atol=1e-4)


def test_raft_keeps_the_correlation_volume_below_a_gibibyte(small):
    estimator = RAFTFlowEstimator(small)
    volume = (512 // 8) ** 4 * 4
    assert estimator._chunk_size(512, 512) * volume <= 2**30 < (estimator._chunk_size(512, 512) + 1) * volume
    assert estimator._chunk_size(4320, 7680) == 1


@pytest.mark.parametrize("height, width", [(50, 70), (129, 128), (16, 200), (1, 1)])
def test_raft_takes_any_size_by_reflection(small, height, width):
    frames = random_frames(2, height, width)
    flow = RAFTFlowEstimator(small, UPDATES)(frames[:1], frames[1:])
    assert flow.shape == (1, 2, height, width)
    target = [max(128, -(-size // 8) * 8) for size in (height, width)]
    rows, columns = (reflected(size, padded) for size, padded in zip((height, width), target, strict=True))
    padded = frames[:, :, rows][:, :, :, columns]
    top, left = ((padded - size) // 2 for size, padded in zip((height, width), target, strict=True))
    expected = one_by_one(small, padded, [(0, 1)])[:, :, top : top + height, left : left + width]
    torch.testing.assert_close(flow, expected, rtol=1e-4, atol=1e-4)


def reflected(size, padded):
    """Return the indices of reflect padding from `size` to `padded` pixels, centered."""
    there_and_back = list(range(size)) + list(range(size - 2, 0, -1))
    return [there_and_back[(i - (padded - size) // 2) % len(there_and_back)] for i in range(padded)]


def test_half_precision_keeps_coordinates_in_float32():
    """Far from the origin float16 coordinates would be multiples of a fraction that the flow then shows."""
    torch.manual_seed(0)
    model = raft_small(weights=None).eval()
    frames = random_frames(2, 128, 512)
    expected = RAFTFlowEstimator(model, UPDATES)(frames[:1], frames[1:])
    coordinates = []
    index_pyramid = model.corr_block.index_pyramid
    model.corr_block.index_pyramid = lambda centroids_coords: (
        coordinates.append(centroids_coords) or index_pyramid(centroids_coords=centroids_coords)
    )
    flow = RAFTFlowEstimator(model.to(torch.bfloat16), UPDATES)(frames[:1], frames[1:])
    assert flow.dtype == torch.float32
    assert all(c.dtype == torch.float32 for c in coordinates) and len(coordinates) == UPDATES
    moved = coordinates[1] - coordinates[0]
    assert (moved[0, 0, :, 33:] * 4 % 1 != 0).float().mean() > 0.5  # bfloat16 steps by a quarter beyond 32
    assert (flow - expected).abs().mean() < 0.05 * expected.abs().mean()


def test_raft_moves_like_a_module(small):
    estimator = RAFTFlowEstimator(raft_small(weights=None), UPDATES)
    assert estimator.to(torch.float64).model.feature_encoder.conv.weight.dtype == torch.float64
    assert not any(parameter.requires_grad for parameter in estimator.parameters())
    assert not estimator.model.training


def test_raft_lets_go_of_the_correlation_volume(small):
    estimator = RAFTFlowEstimator(small, UPDATES)
    frames = random_frames(2, 128, 128)
    estimator(frames[:1], frames[1:])
    assert sum(level.numel() for level in small.corr_block.corr_pyramid) < 10


# DIS


def shifted(shift_x, shift_y, height=64, width=80):
    scene = random_frames(1, 200, 200, seed=4)
    return scene[..., 40 - shift_y : 40 - shift_y + height, 40 - shift_x : 40 - shift_x + width]


@pytest.mark.parametrize("shift", [(3, 0), (0, -2), (-4, 5)])
def test_dis_measures_a_shift(shift):
    flow = DISFlowEstimator()(shifted(0, 0), shifted(*shift))
    inner = flow[0, :, 12:-12, 12:-12]
    assert (inner - torch.tensor(shift).view(2, 1, 1)).abs().mean() < 0.1


def test_dis_matches_each_pair_on_its_own():
    frames_a, frames_b = shifted(0, 0).repeat(3, 1, 1, 1), torch.cat([shifted(2, 0), shifted(0, 0), shifted(-1, 3)])
    together = DISFlowEstimator(num_threads=2)(frames_a, frames_b)
    alone = torch.cat(
        [DISFlowEstimator(num_threads=1)(a[None], b[None]) for a, b in zip(frames_a, frames_b, strict=True)]
    )
    assert torch.equal(together, alone)
    assert together[1].abs().max() < 0.01


def test_a_finer_search_finds_finer_things():
    """A stroke three pixels wide moves by two over a ground at rest: a search at half resolution loses it."""
    frames = random_frames(1, 80, 80, seed=4).repeat(2, 1, 1, 1) * 0.3 + 0.6
    frames[0, :, 10:-10, 40:43], frames[1, :, 10:-10, 42:45] = 0.0, 0.0
    found = {
        setting: DISFlowEstimator(*setting)(frames[:1], frames[1:])[0, 0, 14:-14, 41].mean().item()
        for setting in ((1, 3), (0, 3), (0, 2))
    }
    assert abs(found[0, 2] - 2) < 0.5 * abs(found[1, 3] - 2)
    assert found[0, 2] != found[0, 3]


@pytest.mark.parametrize("height, width", [(1, 1), (5, 7), (11, 300)])
def test_dis_takes_small_frames(height, width):
    frames = random_frames(2, height, width)
    flow = DISFlowEstimator()(frames[:1], frames[1:])
    assert flow.shape == (1, 2, height, width) and flow.isfinite().all()


# Loading


def princeton_layout(state_dict):
    """torchvision's RAFT weights under princeton-vl's names, as its training scripts save them."""
    renamed = {}
    for key, value in state_dict.items():
        name = key.replace("feature_encoder", "fnet").replace("context_encoder", "cnet")
        name = re.sub(r"^(.net)\.convnormrelu\.0", r"\1.conv1", name)
        name = re.sub(r"^(.net)\.convnormrelu\.1", r"\1.norm1", name)
        name = re.sub(r"^(.net)\.conv\.", r"\1.conv2.", name)
        name = re.sub(r"convnormrelu(\d)\.0", r"conv\1", name)
        name = re.sub(r"convnormrelu(\d)\.1", r"norm\1", name)
        name = name.replace("motion_encoder.convcorr", "encoder.convc").replace(
            "motion_encoder.convflow", "encoder.convf"
        )
        name = re.sub(r"(encoder\.conv[cf]\d)\.0", r"\1", name).replace("motion_encoder.conv.0", "encoder.conv")
        name = re.sub(r"recurrent_block\.convgru(\d)\.conv(.)", r"gru.conv\2\1", name)
        if not any(".convgru2." in other for other in state_dict):
            name = re.sub(r"gru\.conv(.)1", r"gru.conv\1", name)
        name = name.replace("mask_predictor.convrelu.0", "update_block.mask.0")
        name = name.replace("mask_predictor.conv.", "update_block.mask.2.")
        renamed[f"module.{name}"] = value
        if ".downsample.1." in name:
            renamed[f"module.{name}".replace("downsample.1", "norm3")] = value
    return renamed


def assert_same_weights(estimator, model):
    state_dict = estimator.model.state_dict()
    assert state_dict.keys() == model.state_dict().keys()
    assert all(torch.equal(state_dict[name], value) for name, value in model.state_dict().items())


def test_princeton_names_are_what_they_are_known_to_be(large, small):
    names = princeton_layout(large.state_dict())
    for name in (
        "module.fnet.conv1.weight",
        "module.fnet.layer2.0.downsample.0.bias",
        "module.cnet.layer3.0.norm3.running_mean",
        "module.cnet.norm1.running_var",
        "module.update_block.encoder.convc1.weight",
        "module.update_block.encoder.convf2.bias",
        "module.update_block.encoder.conv.weight",
        "module.update_block.gru.convq2.weight",
        "module.update_block.flow_head.conv2.bias",
        "module.update_block.mask.0.weight",
        "module.update_block.mask.2.bias",
    ):
        assert name in names
    assert "module.update_block.gru.convz.weight" in princeton_layout(small.state_dict())
    assert "module.fnet.layer2.1.conv3.weight" in princeton_layout(small.state_dict())


@pytest.mark.parametrize("size", ["small", "large"])
@pytest.mark.parametrize("layout", ["princeton", "torchvision"])
def test_weights_come_from_a_file_of_either_layout(size, layout, request, tmp_path):
    model = request.getfixturevalue(size)
    state_dict = princeton_layout(model.state_dict()) if layout == "princeton" else model.state_dict()
    path = tmp_path / "raft.pth"
    torch.save(state_dict, path)
    name = "raft-small" if size == "small" else "raft"
    assert_same_weights(load_flow_estimator(name, path), model)
    assert_same_weights(load_flow_estimator(None, str(path)), model)  # large or small is told from the weights


def test_weights_come_from_safetensors_in_the_asked_precision(small, tmp_path):
    path = tmp_path / "raft.safetensors"
    save_file({name: value.clone() for name, value in small.state_dict().items()}, path)
    assert_same_weights(load_flow_estimator("raft-small", path), small)
    estimator = load_flow_estimator("raft-small", path, dtype=torch.bfloat16, chunk_size=3)
    assert {parameter.dtype for parameter in estimator.parameters()} == {torch.bfloat16}
    assert estimator.chunk_size == 3


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """An empty download folder, and a proxy that nobody answers at."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def log(monkeypatch, caplog):
    monkeypatch.setattr(diffusers_logging._get_library_root_logger(), "propagate", True)
    return caplog


def test_without_weights_at_hand_dis_is_taken_and_said_to_be(offline, log):
    assert isinstance(load_flow_estimator(), DISFlowEstimator)
    assert "DIS" in log.text and "RAFT" in log.text


def test_without_torchvision_dis_is_taken_and_without_opencv_refused(monkeypatch, log):
    missing = ["torchvision"]
    monkeypatch.setattr(landscape_optical_flow, "find_spec", lambda name: None if name in missing else find_spec(name))
    assert isinstance(load_flow_estimator(), DISFlowEstimator)
    assert "RAFT needs torchvision" in log.text
    missing.append("cv2")
    with pytest.raises(ImportError, match="'dis' needs OpenCV: `pip install opencv-python`"):
        load_flow_estimator()


def test_dis_by_name_needs_no_word(offline, log):
    assert isinstance(load_flow_estimator("dis"), DISFlowEstimator)
    assert log.text == ""


def test_downloaded_weights_are_taken(offline, small, large):
    torch.save(small.state_dict(), offline / Raft_Small_Weights.DEFAULT.url.rsplit("/", 1)[-1])
    assert_same_weights(load_flow_estimator(), small)
    assert_same_weights(load_flow_estimator("raft-small", "DEFAULT"), small)
    torch.save(large.state_dict(), offline / Raft_Large_Weights.DEFAULT.url.rsplit("/", 1)[-1])
    assert_same_weights(load_flow_estimator(), large)


def test_other_weights_by_name(offline, large):
    torch.save(large.state_dict(), offline / Raft_Large_Weights.C_T_V2.url.rsplit("/", 1)[-1])
    assert_same_weights(load_flow_estimator("raft", "C_T_V2"), large)


@pytest.mark.parametrize("name", ["raft", "raft-small"])
def test_no_network_is_said_with_what_to_do(offline, name):
    with pytest.raises(OSError, match=r"(?s)download\.pytorch\.org.*'dis'"):
        load_flow_estimator(name)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=f"must be one of {', '.join(FLOW_ESTIMATORS)}, got 'farneback'"):
        load_flow_estimator("farneback")


def test_dis_refuses_weights(tmp_path):
    with pytest.raises(ValueError, match="`weights` must be None for the flow estimator 'dis'"):
        load_flow_estimator("dis", tmp_path / "raft.pth")


def test_a_missing_file_is_named():
    with pytest.raises(FileNotFoundError, match="nowhere.pth"):
        load_flow_estimator("raft", "nowhere.pth")


def test_weights_of_the_other_size_are_refused(small, tmp_path):
    path = tmp_path / "small.pth"
    torch.save(small.state_dict(), path)
    with pytest.raises(ValueError, match="small.pth must hold the weights of torchvision's raft_large"):
        load_flow_estimator("raft", path)


def test_unknown_keys_are_refused(small, tmp_path):
    path = tmp_path / "more.pth"
    torch.save({**princeton_layout(small.state_dict()), "module.extra": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="extra"):
        load_flow_estimator("raft-small", path)


def test_a_misfit_is_one_short_line_with_an_example_of_each_kind(small, tmp_path):
    path = tmp_path / "other.pth"
    state_dict = {
        **small.state_dict(),
        "a": torch.zeros(1),
        "b": torch.zeros(1),
        "update_block.flow_head.conv2.bias": torch.zeros(3),
    }
    del state_dict["feature_encoder.conv.bias"]
    torch.save(state_dict, path)
    with pytest.raises(ValueError) as refused:
        load_flow_estimator("raft-small", path)
    assert str(refused.value) == (
        f"{path} must hold the weights of torchvision's raft_small, got tensors that are missing "
        "(feature_encoder.conv.bias), unknown (a and 1 more), "
        "of another shape (update_block.flow_head.conv2.bias: (3,), not (2,))."
    )


class Payload:
    def __reduce__(self):
        return (print, ("code of the file ran",))


def test_code_in_a_weights_file_does_not_run(tmp_path, capsys):
    path = tmp_path / "evil.pth"
    torch.save({"fnet.conv1.weight": Payload()}, path)
    with pytest.raises(ValueError, match="evil.pth"):
        load_flow_estimator("raft", path)
    assert "code of the file ran" not in capsys.readouterr().out


def test_files_that_are_no_weights_are_refused(tmp_path):
    path = tmp_path / "notes.pth"
    path.write_text("not weights")
    with pytest.raises(ValueError, match="notes.pth"):
        load_flow_estimator("raft", path)
    torch.save({"step": 3}, path)
    with pytest.raises(ValueError, match="notes.pth must hold a plain state dict"):
        load_flow_estimator("raft", path)
    path = tmp_path / "notes.safetensors"
    path.write_text("not weights")
    with pytest.raises(ValueError, match="notes.safetensors"):
        load_flow_estimator("raft", path)


@pytest.mark.parametrize(
    "make",
    [
        lambda small: RAFTFlowEstimator(small, chunk_size=0),
        lambda small: DISFlowEstimator(num_threads=0),
        lambda small: load_flow_estimator("dis", chunk_size=0),
    ],
)
def test_chunks_of_nothing_are_refused(make, small):
    with pytest.raises(ValueError, match="`(chunk_size|num_threads)` must be at least 1 pair, got 0"):
        make(small)


def test_wrong_depths_are_refused(small):
    with pytest.raises(ValueError, match="`num_flow_updates` must be at least 1, got 0"):
        RAFTFlowEstimator(small, num_flow_updates=0)
    with pytest.raises(ValueError, match="`finest_scale` must be at least 0, .*, got -1"):
        DISFlowEstimator(finest_scale=-1)
    for patch_stride in (0, 9):
        with pytest.raises(ValueError, match=f"`patch_stride` must be between 1 and 8 pixels, got {patch_stride}"):
            DISFlowEstimator(patch_stride=patch_stride)


@pytest.mark.parametrize("make", [lambda small: RAFTFlowEstimator(small, UPDATES), lambda small: DISFlowEstimator()])
def test_frames_that_do_not_match_are_refused(make, small):
    estimator = make(small)
    with pytest.raises(ValueError, match=r"must have one shape, got \(1, 3, 16, 16\) and \(1, 3, 16, 18\)"):
        estimator(torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 18))
    with pytest.raises(ValueError, match=r"\(frames, 3, height, width\)"):
        estimator(torch.rand(1, 1, 16, 16), torch.rand(1, 1, 16, 16))
