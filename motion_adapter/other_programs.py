"""Say how programs that ignore our entries of a motion adapter's config would run it."""

from collections.abc import Mapping
from typing import Any

from pipeline_landscape_video.landscape_motion_attention import PLAIN_CONFIG


# Read from the sources of AnimateDiff, of ComfyUI-AnimateDiff-Evolved 1.5.7 and of diffusers 0.42.1
PROGRAMS = {
    "diffusers' own pipelines": PLAIN_CONFIG,
    "AnimateDiff and AnimateDiff-Evolved (ComfyUI)": {"sparse_causal_mode": "full", "motion_norm": "frame"},
}
RUN_AS = {"full": "full attention", "clip": "the norm of the clip", "frame": "the norm of each frame"}
# In mode `previous` a frame sees one other frame, so queries and keys have no effect and do not train.
UNTRAINED = "in both, the queries and keys of the second attention are untrained"


def other_programs(config: Mapping[str, Any]) -> str:
    """Describe, in one line, how other programs run an adapter differently from its training.

    The norms of diffusers and AnimateDiff differ, so every adapter is run differently by one of them.

    Args:
        config: Config of the adapter, or of a motion UNet.
    """
    trained = PLAIN_CONFIG | {name: config[name] for name in PLAIN_CONFIG if name in config}
    parts = []
    for program, runs in PROGRAMS.items():
        differences = [RUN_AS[runs[name]] for name in trained if runs[name] != trained[name]]
        if differences:
            parts.append(f"{program} run it with {' and '.join(differences)}")
    if trained["sparse_causal_mode"] == "previous":
        parts.append(UNTRAINED)
    return "; ".join(parts)


def trained_as(config: Mapping[str, Any]) -> str:
    """Describe, in one line, how an adapter was trained and how other programs run it differently."""
    mode, norm = (config.get(name, default) for name, default in PLAIN_CONFIG.items())
    return f"trained with sparse_causal_mode {mode!r} and motion_norm {norm!r}: {other_programs(config)}."
