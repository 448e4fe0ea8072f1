"""Settings of a run: its output, validation clips and publishing."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from landscape_video.training.settings.options import OptionGroup, option
from motion_adapter.hub import check_repo_id
from motion_adapter.model_card import check_license


LOG = "log.jsonl"


@dataclass(kw_only=True)
class RunSettings(OptionGroup):
    """Output, checkpoints and logs."""

    output_dir: Path = option(
        Path("motion-adapter"), "folder of the trained models, checkpoints and logs", free=True, private=True
    )
    seed: int = option(0, "seed of new weights and of everything that is drawn in training", minimum=0)
    logging_steps: int = option(10, "steps that one line of log.jsonl averages", minimum=1, free=True, private=True)
    checkpointing_steps: int = option(500, "steps between checkpoints", minimum=1, free=True, private=True)
    checkpoints_total_limit: int | None = option(
        None,
        "number of checkpoints to keep; older ones are deleted",
        minimum=1,
        default_text="all",
        free=True,
        private=True,
    )
    resume_from_checkpoint: str | None = option(
        None,
        "checkpoint to resume from; later ones in OUTPUT_DIR are renamed to abandoned-...",
        metavar="latest|PATH",
        default_text="start a new run",
        free=True,
        private=True,
    )
    report_to: tuple[Literal["tensorboard", "wandb"], ...] = option(
        (),
        "trackers that get losses, learning rate, speed and validation clips; files in OUTPUT_DIR get them anyway",
        nargs="+",
        default_text="none",
        free=True,
        private=True,
    )

    @property
    def log_file(self) -> Path:
        """File with a line of mean losses for every `logging_steps` steps."""
        return self.output_dir / LOG


@dataclass(kw_only=True)
class ValidationSettings(OptionGroup):
    """Clips that are generated while training runs."""

    validation_steps: int | None = option(
        None,
        "steps between validations, which generate clips and report how much moves",
        minimum=1,
        default_text="never",
        free=True,
    )
    validation_prompts: tuple[str, ...] | None = option(
        None,
        "prompts of validation clips",
        nargs="+",
        metavar="PROMPT",
        default_text="the first training caption",
        free=True,
    )
    validation_inference_steps: int = option(25, "denoising steps of validation clips", minimum=1, free=True)
    validation_guidance_scale: float | None = option(
        None,
        "guidance scale of validation clips",
        default_text="8; the model's own for shanshui-tiny and models trained from it",
        free=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.validation_steps is None and self.validation_prompts:
            raise ValueError("`validation_prompts` are for validation clips: set `validation_steps` as well.")


@dataclass(kw_only=True)
class HubSettings(OptionGroup):
    """Publishing on the Hugging Face Hub."""

    push_to_hub: bool = option(False, "publish the result on the Hugging Face Hub", free=True, private=True)
    hub_model_id: str | None = option(
        None, "repository to publish to, created if it does not exist", metavar="USER/NAME", free=True, private=True
    )
    hub_license: str | None = option(
        None, "license of the weights as the Hub names it, such as apache-2.0", metavar="ID", free=True, private=True
    )
    hub_base_model: str | None = option(
        None,
        "Hub name of the image model, required if it is a folder",
        metavar="NAME",
        free=True,
        private=True,
    )
    hub_private: bool = option(False, "make a new repository private", free=True, private=True)
    hub_strategy: Literal["end", "every_save"] = option(
        "end",
        "publish when training ends, or with each checkpoint",
        free=True,
        private=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.push_to_hub:
            if any(getattr(self, field.name) != field.default for field in fields(self)):
                raise ValueError("`hub_...` settings need `push_to_hub`: set it or drop them.")
            return
        if self.hub_model_id is None or self.hub_license is None:
            raise ValueError("`push_to_hub` needs `hub_model_id` (USER/NAME) and `hub_license`.")
        check_repo_id(self.hub_model_id)
        if self.hub_license == "other":
            raise ValueError(
                "`hub_license` other needs a name: push later with `landscape-video push --license-name`."
            )
        check_license(self.hub_license, None)
