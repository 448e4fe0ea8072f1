"""Settings of an edit: how far a clip may change, and how it is sampled."""

import secrets
from dataclasses import dataclass, replace
from typing import Literal, Self

from landscape_video.generation.setting_fields import (
    CONTENT,
    LONG_CLIPS,
    NOT_PASSED,
    SAMPLING,
    Settings,
    setting,
)


EDITING = "Editing"


@dataclass(frozen=True, kw_only=True)
class EditSettings(Settings):
    """Settings of a clip that is edited by words (one-shot depth tuning)."""

    negative_prompt: str | None = setting(
        None, "What to keep out of the image.", CONTENT, unit="TEXT", default_text="nothing"
    )
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
    steps: int | None = setting(
        None,
        "Denoising steps.",
        SAMPLING,
        unit="NUMBER",
        default_text="the model's own, else 25",
        minimum=1,
        argument="num_inference_steps",
    )
    guidance_scale: float | None = setting(
        None,
        "How closely to follow the prompts.",
        SAMPLING,
        unit="NUMBER",
        default_text="the model's own, else 8",
        above=0,
    )
    seed: int | None = setting(
        None,
        "Seed of the noise; the same seed gives the same clip.",
        SAMPLING,
        unit="NUMBER",
        default_text="drawn at random, and printed",
        minimum=0,
        maximum=2**63 - 1,
        argument=NOT_PASSED,
    )
    context_length: int | None = setting(
        None, "Frames that are edited together.", LONG_CLIPS, unit="NUMBER", default_text="16", minimum=1
    )
    context_overlap: int | None = setting(
        None,
        "Frames that neighboring windows share.",
        LONG_CLIPS,
        unit="NUMBER",
        default_text="a quarter of the window",
        minimum=0,
    )

    def with_seed(self) -> Self:
        """Return these settings with a seed: their own, else one drawn at random."""
        return self if self.seed is not None else replace(self, seed=secrets.randbelow(2**32))
