"""Interpolate the frames of a clip with sparse optical flow projection."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch
from comfy.model_management import (
    get_torch_device,
    intermediate_device,
    throw_exception_if_processing_interrupted,
)
from comfy_api.latest import io
from torch import Tensor

from ..vendored.frame_interpolation import FrameInterpolator
from ..vendored.optical_flow import FLOW_ESTIMATORS, DISFlowEstimator, RAFTFlowEstimator, estimator_at_hand
from ..vendored.scene_cuts import SceneDetector
from ..vendored.sofp import SOFP_MODES, SparseFlowProjection
from ..vendored.timeline import doubled_times
from ..vendored.warping import FlowWarper
from .common import CATEGORY, PREFIX, Recipe, check_clip, report_progress, to_bytes


AUTO = "auto"


class InterpolateFrames(io.ComfyNode):
    """IMAGE to IMAGE: N frames become `(N - 1) * 2**times + 1`."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=f"{PREFIX}Interpolate",
            display_name="Interpolate Frames (SOFP)",
            category=CATEGORY,
            description="Double the frame rate of a clip once, twice or three times. Frames are never blended across "
            "a cut.",
            search_aliases=["frame interpolation", "slow motion", "optical flow"],
            inputs=[
                io.Image.Input("images", tooltip="The frames of a clip, at least 2."),
                io.Int.Input(
                    "times",
                    default=1,
                    min=1,
                    max=3,
                    tooltip="Doublings of the frame rate: 1 gives 2 times, 3 gives 8.",
                ),
                io.Float.Input("fps", default=8.0, min=0.01, max=1000.0, step=0.01, tooltip="Frame rate of the clip."),
                io.Combo.Input(
                    "sofp_mode",
                    options=list(SOFP_MODES),
                    default="quadratic",
                    tooltip="Position of a pixel between two frames: on a parabola through its motion (quadratic), at "
                    "the fraction of NADM Eq. 14 (projection), or at constant speed (linear).",
                ),
                io.Combo.Input(
                    "flow",
                    options=[AUTO, *FLOW_ESTIMATORS],
                    default=AUTO,
                    tooltip="Optical flow estimator: RAFT (torchvision downloads its weights once, 20 or 4 MB) or "
                    "OpenCV's DIS (no weights). auto is RAFT if its weights are on this machine.",
                ),
                io.Boolean.Input(
                    "keep_duplicates",
                    default=False,
                    tooltip="Keep frames that repeat the one before, instead of moving between the distinct pictures.",
                ),
                Recipe.Input("recipe", optional=True, tooltip="Recipe of the clip, to which this step is added."),
            ],
            outputs=[
                io.Image.Output("frames", display_name="images"),
                io.Float.Output("frame_rate", display_name="fps"),
                Recipe.Output("new_recipe", display_name="recipe"),
            ],
        )

    @classmethod
    async def execute(
        cls,
        images: Tensor,
        times: int,
        fps: float,
        sofp_mode: str,
        flow: str,
        keep_duplicates: bool,
        recipe: dict[str, Any] | None = None,
    ) -> io.NodeOutput:
        images = check_clip(images)
        name = estimator_at_hand() if flow == AUTO else flow
        device = get_torch_device()
        timestamps = [index / fps for index in range(len(images))]
        positions, scenes = find_timeline(images, timestamps, fps, keep_duplicates)
        output_times = doubled_times(timestamps, times)
        parts = (load_estimator(name, device), SparseFlowProjection(sofp_mode), FlowWarper(), times)
        interpolator = FrameInterpolator(*parts, output_times=output_times)
        after_cut = False  # of the frame read last

        def frames() -> Iterator[tuple[Tensor, float]]:
            nonlocal after_cut
            for number, time in positions.items():
                after_cut = number in scenes
                yield images[number].to(device, torch.float32).movedim(-1, 0), time

        interpolated = torch.empty(len(output_times), *images.shape[1:], device=intermediate_device())
        stream = interpolator.interpolate_stream(frames(), is_cut=lambda *_: after_cut)
        for index, (frame, _) in enumerate(stream):
            interpolated[index] = frame.movedim(0, -1)
            await report_progress(index + 1, len(output_times))
        step = {"times": times, "sofp_mode": sofp_mode, "flow": name, "repeated_frames": len(images) - len(positions)}
        return io.NodeOutput(interpolated, fps * 2**times, {**(recipe or {}), "interpolation": step})


def find_timeline(
    images: Tensor, timestamps: list[float], fps: float, keep_duplicates: bool
) -> tuple[dict[int, float], set[int]]:
    """
    Return the times of the frames to interpolate between, by their numbers, and the first frames of the scenes.

    Args:
        images: Frames, `(num_frames, height, width, 3)` in [0, 1].
        timestamps: Times of all frames in seconds.
        fps: Frame rate.
        keep_duplicates: Interpolate between all frames.

    Raises:
        InterruptProcessingException: The user pressed Cancel.
    """
    detector = SceneDetector()
    for image in images:
        throw_exception_if_processing_interrupted()
        detector.add(to_bytes(image).cpu().numpy())
    scenes = set(detector.find_scenes(fps))
    if keep_duplicates:
        return dict(enumerate(timestamps)), scenes
    return dict(zip(*detector.find_pictures(timestamps, fps), strict=True)), scenes


# A node class cannot hold the estimator: ComfyUI locks classes while nodes run.
@lru_cache(maxsize=1)
def load_estimator(name: str, device: torch.device) -> DISFlowEstimator | RAFTFlowEstimator:
    """
    Return a flow estimator, the one used last if it has this name and device.

    Raises:
        OSError: The weights of RAFT cannot be downloaded.
    """
    return DISFlowEstimator() if name == "dis" else RAFTFlowEstimator(load_raft(name).to(device))


def load_raft(name: str) -> torch.nn.Module:
    """Load torchvision's RAFT with its default weights, which are downloaded when they are used first."""
    from torchvision.models.optical_flow import raft_large, raft_small

    try:
        return (raft_large if name == "raft" else raft_small)(weights="DEFAULT", progress=False)
    except OSError as error:
        raise OSError(f"RAFT weights cannot be downloaded ({error}); set `flow` to dis, which needs none.") from error
