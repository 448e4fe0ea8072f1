"""Settings of a handscroll."""

from dataclasses import dataclass

from landscape_video.generation.setting_fields import SAMPLING, setting
from landscape_video.generation.settings import ClipSettings


SCROLL = "Handscroll"
FRAMES_PER_SCREEN = 32  # the camera moves by a latent column of the bundled model in each frame


@dataclass(frozen=True, kw_only=True)
class ScrollSettings(ClipSettings):
    """Settings of a handscroll that a camera pans along."""

    length: float = setting(
        6.0, "Length of the scroll in screens, which are as wide as the video.", SCROLL, unit="SCREENS", minimum=1
    )
    stillness: float = setting(
        0.03,
        "Changes below this level are flicker and are removed; 0 removes nothing. A clip's own contrast is about 1.",
        SCROLL,
        unit="NUMBER",
        minimum=0,
    )
    num_frames: int | None = setting(
        None, "Frames to sample.", SAMPLING, unit="NUMBER", default_text="32 for each screen to cross", minimum=2
    )
    width: int | None = setting(
        None,
        "Width of the video in pixels.",
        SAMPLING,
        unit="PIXELS",
        default_text="twice the size of the model's frames",
        minimum=8,
        multiple_of=8,
    )

    @property
    def num_video_frames(self) -> int:
        """Frames to sample: `num_frames`, or `FRAMES_PER_SCREEN` for each screen that the camera crosses."""
        return self.num_frames or 1 + round(FRAMES_PER_SCREEN * (self.length - 1))
