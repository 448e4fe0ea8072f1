"""Sample long video in windows that move in every step, as a context option of AnimateDiff-Evolved."""

import sys
from typing import Any

from comfy_api.latest import io

from ..vendored.windows import CONTEXT_SCHEDULES, CONTEXT_WEIGHTS, WindowPlan
from .common import CATEGORY, PREFIX, evolved_node


SCHEDULE = "landscape_video_windows"  # key of our planner in AnimateDiff-Evolved's table of schedules
CONTEXT_NODE = "ADE_StandardStaticContextOptions"


class MovingWindows(io.ComfyNode):
    """CONTEXT_OPTIONS of AnimateDiff-Evolved whose windows are those of landscape-video."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=f"{PREFIX}MovingWindows",
            display_name="Moving Windows (AnimateDiff-Evolved)",
            category=CATEGORY,
            description="Sample more frames than the motion model knows, in windows that move in every step, so that "
            "no seam stays in place. Connect it to the context options of Use Evolved Sampling.",
            search_aliases=["long video", "context options", "sliding window"],
            inputs=[
                io.Int.Input("context_length", default=16, min=1, max=128, tooltip="Frames per window."),
                io.Int.Input(
                    "context_overlap", default=4, min=0, max=127, tooltip="Frames that neighboring windows share."
                ),
                io.Combo.Input(
                    "context_schedule",
                    options=list(CONTEXT_SCHEDULES),
                    default="moved",
                    tooltip="Move the windows in every step, or keep them (static).",
                ),
                io.Combo.Input(
                    "context_weights",
                    options=list(CONTEXT_WEIGHTS),
                    default="pyramid",
                    tooltip="Weights of the frames in a window: most in its middle (pyramid), or equal (flat).",
                ),
                io.Boolean.Input("closed_loop", default=False, tooltip="Let the clip end where it begins."),
            ],
            outputs=[io.Custom("CONTEXT_OPTIONS").Output("context_options", display_name="CONTEXT_OPTS")],
        )

    @classmethod
    def execute(
        cls, context_length: int, context_overlap: int, context_schedule: str, context_weights: str, closed_loop: bool
    ) -> io.NodeOutput:
        package = evolved_node(CONTEXT_NODE).__module__.rpartition(".")[0]
        WindowPlan(context_length, context_length, context_overlap, context_schedule)  # checks the numbers
        context = sys.modules[f"{package}.context"]
        context.CONTEXT_MAPPING[SCHEDULE] = plan_windows
        options = context.ContextOptions(
            context_length=context_length,
            context_overlap=context_overlap,
            # Clones of the options keep the stride only: it says whether windows move.
            context_stride=CONTEXT_SCHEDULES.index(context_schedule),
            context_schedule=SCHEDULE,
            closed_loop=closed_loop,
            fuse_method=context_weights,
            use_on_equal_length=closed_loop,
        )
        group = context.ContextOptionsGroup()
        group.add(options)
        return io.NodeOutput(group)


def plan_windows(num_frames: int, options: Any) -> list[list[int]]:
    """Return the frames of each window at the current step, from context options of AnimateDiff-Evolved."""
    schedule = CONTEXT_SCHEDULES[options.context_stride]
    plan = WindowPlan(
        num_frames, options.context_length, options.context_overlap, schedule, closed_loop=options.closed_loop
    )
    return plan.windows(options.step)
