"""Settings of an edit: how far a clip may change, and how it is sampled."""

from dataclasses import dataclass
from typing import Literal

from landscape_video.generation.setting_fields import NOT_PASSED, setting
from landscape_video.generation.settings import GuidanceSettings, SeedSettings, WindowSettings


EDITING = "Editing"


@dataclass(frozen=True, kw_only=True)
class EditSettings(SeedSettings, WindowSettings, GuidanceSettings):
    """Settings of a clip that is edited by words (one-shot depth tuning)."""

    edit_mode: Literal["paired", "inversion"] = setting(
        "paired",
        "paired follows the difference between both prompts on the same noise; inversion inverts the clip and samples "
        "it with the new prompt, as in the paper.",
        EDITING,
    )
    strength: float | None = setting(
        None,
        "Share of the noise from which the edit begins: less keeps more of the clip.",
        EDITING,
        unit="NUMBER",
        default_text="1, or 0.8 with --edit-mode inversion",
        minimum=0.01,
        maximum=1,
    )
    inversion_iterations: int = setting(
        1, "Fixed-point iterations of each step of the inversion.", EDITING, unit="NUMBER", minimum=0
    )
    resize: int | None = setting(
        None,
        "Shorter side of the new frames.",
        EDITING,
        unit="PIXELS",
        default_text="the model's own",
        minimum=16,
        argument=NOT_PASSED,
    )
