"""
Generate short landscape-painting videos with diffusers pipelines.

Names are imported at their first use: importing the pipelines of diffusers takes seconds, for which `--help` of a
command should not wait. `custom_pipeline` of diffusers never runs this file.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from .interpolation import interpolate_frames, interpolate_stream
    from .landscape_image_retention import ImageRetention
    from .landscape_motion_attention import (
        MOTION_NORMS,
        SPARSE_CAUSAL_MODES,
        install_motion_norm,
        install_sparse_causal_attention,
        sparse_causal_mask,
    )
    from .landscape_optical_flow import FLOW_ESTIMATORS, FlowEstimator, load_flow_estimator
    from .landscape_sampling import resolve_sampling
    from .landscape_sofp import SOFP_MODES
    from .pipeline import LandscapeVideoPipeline
    from .pipeline_image_to_video import LandscapeImageToVideoPipeline
    from .pipeline_video_editing import LandscapeVideoEditingPipeline


SHANSHUI_TINY: Path = Path(__file__).parent / "shanshui_tiny"
"""Folder of the bundled model: `LandscapeVideoPipeline.from_pretrained(SHANSHUI_TINY)` works offline."""

_HOME_OF = {
    "LandscapeVideoPipeline": "pipeline",
    "LandscapeImageToVideoPipeline": "pipeline_image_to_video",
    "LandscapeVideoEditingPipeline": "pipeline_video_editing",
    "SOFP_MODES": "landscape_sofp",
    "interpolate_frames": "interpolation",
    "interpolate_stream": "interpolation",
    "ImageRetention": "landscape_image_retention",
    "FLOW_ESTIMATORS": "landscape_optical_flow",
    "FlowEstimator": "landscape_optical_flow",
    "load_flow_estimator": "landscape_optical_flow",
    "resolve_sampling": "landscape_sampling",
    "MOTION_NORMS": "landscape_motion_attention",
    "SPARSE_CAUSAL_MODES": "landscape_motion_attention",
    "install_motion_norm": "landscape_motion_attention",
    "install_sparse_causal_attention": "landscape_motion_attention",
    "sparse_causal_mask": "landscape_motion_attention",
}

__all__ = [
    "SHANSHUI_TINY",
    "FLOW_ESTIMATORS",
    "MOTION_NORMS",
    "SOFP_MODES",
    "SPARSE_CAUSAL_MODES",
    "FlowEstimator",
    "ImageRetention",
    "LandscapeImageToVideoPipeline",
    "LandscapeVideoEditingPipeline",
    "LandscapeVideoPipeline",
    "install_motion_norm",
    "install_sparse_causal_attention",
    "interpolate_frames",
    "interpolate_stream",
    "load_flow_estimator",
    "resolve_sampling",
    "sparse_causal_mask",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
