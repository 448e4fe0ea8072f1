"""Show the progress of a job as HTML: step, remaining time, and a moving preview of all frames."""

import base64
import html
import time
from dataclasses import dataclass, field
from io import BytesIO

import numpy as np
from PIL import Image

from landscape_video.web.texts import say


PREVIEW_MILLISECONDS = 125  # of each frame: clips are sampled at 8 frames per second


@dataclass
class StepClock:
    """Predicts the remaining time of a job from the steps it has done.

    Args:
        steps: Steps of the job.
        seconds_after: Expected seconds of decoding and interpolation, after the last step.
    """

    steps: int
    seconds_after: float = 0.0
    started: float = field(default_factory=time.monotonic)
    done: int = 0

    def remaining(self) -> float | None:
        """Seconds until the job ends; None before its first step."""
        if not self.done:
            return None
        seconds_per_step = (time.monotonic() - self.started) / self.done
        return (self.steps - self.done) * seconds_per_step + self.seconds_after


def progress_html(message: str, frames: np.ndarray | None = None, fraction: float | None = None) -> str:
    """A message, the bar of a fraction in [0, 1], and frames as an animation.

    Args:
        frames: uint8 `(num_frames, height, width, 3)`, of any size; the page enlarges them.
    """
    parts = [f'<p class="lv-message" role="status">{html.escape(message)}</p>']
    if fraction is not None:
        parts.append(f'<progress class="lv-bar" max="1" value="{fraction:.3f}"></progress>')
    if frames is not None:
        parts.append(f'<img class="lv-preview" alt="" src="{animation_url(frames)}">')
    return "".join(parts)


def animation_url(frames: np.ndarray) -> str:
    """Frames as a data URL of an animated WebP, which belongs to one visitor and needs no file."""
    images = [Image.fromarray(frame) for frame in frames]
    data = BytesIO()
    images[0].save(
        data,
        "WEBP",
        save_all=True,
        append_images=images[1:],
        duration=PREVIEW_MILLISECONDS,
        loop=0,
        quality=80,
        method=0,
    )
    return "data:image/webp;base64," + base64.b64encode(data.getvalue()).decode("ascii")


def step_message(clock: StepClock, language: str) -> str:
    """The step and the remaining time in words."""
    message = say("step", language, step=clock.done, steps=clock.steps)
    remaining = clock.remaining()
    if remaining is None:
        return message
    return f"{message}, {say('remaining', language, seconds=max(1, round(remaining)))}"
