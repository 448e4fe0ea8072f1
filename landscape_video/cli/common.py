"""What several commands share."""

import math
import platform
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer


if TYPE_CHECKING:
    import torch

    from pipeline_landscape_video import FlowEstimator


# The words of the library, again: importing it to read them would take seconds.
class SofpMode(StrEnum):
    quadratic = "quadratic"
    projection = "projection"
    linear = "linear"


class Flow(StrEnum):
    raft = "raft"
    raft_small = "raft-small"
    dis = "dis"


class SparseCausalMode(StrEnum):
    previous = "previous"
    current_previous = "current_previous"
    first_previous = "first_previous"
    full = "full"


# The packages that decide which frames come out; av brings the encoder of .mp4.
VERSIONED = ("landscape-video", "torch", "torchvision", "diffusers", "transformers", "peft", "opencv-python", "av")

FLOW_HELP = (
    "What estimates motion: RAFT (its weights are downloaded once, 20 or 4 MB), or OpenCV's DIS, which needs none. "
    "Without this option: RAFT if its weights are on this machine, else DIS."
)
FLOW_WEIGHTS_HELP = (
    "RAFT's weights from a file instead: a state dict of torchvision's or princeton-vl's RAFT, .safetensors or .pth "
    "(read without running its code). Without --flow, the file tells which RAFT it is."
)
SOFP_HELP = "How motion places the frame between two others: accelerating, as the paper's formula says, or evenly."
DEVICE_HELP = "Where to compute: auto, cpu, cuda, cuda:1, mps, ..."


def finite_and_positive(number: float | None) -> float | None:
    """typer callback for numbers where 0, infinity and NaN mean nothing."""
    if number is not None and not (math.isfinite(number) and number > 0):
        raise typer.BadParameter(f"must be a positive number, not {number:g}.")
    return number


def from_0_to_1(number: float | None) -> float | None:
    """typer callback for shares."""
    if number is not None and not 0 <= number <= 1:
        raise typer.BadParameter(f"must be a number from 0 to 1, not {number:g}.")
    return number


def seed_in_range(seed: int | None) -> int | None:
    """typer callback: torch takes seeds of 64 bits."""
    if seed is not None and not 0 <= seed < 2**63:
        raise typer.BadParameter(f"must be from 0 to 2^63 - 1, not {seed}.")
    return seed


def pick_device(name: str) -> "torch.device":
    """The device of that name, the fastest one for "auto". Raises `ValueError` for one that is missing."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        reason = str(error).splitlines()[0].rstrip(".")
        raise ValueError(f"--device {name}: not to be had on this machine ({reason}).") from error
    return device


def check_flow_weights(flow: Flow | None, flow_weights: Path | None) -> None:
    """Raise `ValueError` for weights that are not there, or that nobody would read."""
    if flow_weights is None:
        return
    if flow is Flow.dis:
        raise ValueError("--flow-weights: are RAFT's, but --flow is dis, which has none.")
    if not flow_weights.is_file():
        raise ValueError(f"--flow-weights {flow_weights}: there is no such file.")


def name_of_flow_estimator(flow_estimator: "FlowEstimator") -> str:
    """Which of `Flow` an estimator is, for the metadata of a clip whose estimator was chosen by itself."""
    from pipeline_landscape_video.landscape_optical_flow import RAFTFlowEstimator

    if not isinstance(flow_estimator, RAFTFlowEstimator):
        return Flow.dis.value
    return Flow.raft_small.value if flow_estimator.model.mask_predictor is None else Flow.raft.value


def environment(device: "torch.device") -> dict[str, Any]:
    """What besides prompt, seed and settings decides which frames come out: device, threads and versions."""
    import torch

    versions = {"python": platform.python_version()}
    for package in VERSIONED:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # run from a checkout
            continue
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {"device": str(device), "device_name": name, "threads": torch.get_num_threads(), "versions": versions}
