"""Few-step adapters: LoRA weights with which a model samples in a few steps without guidance.

`training/distill_few_steps.py` trains one. Its folder holds `pytorch_lora_weights.safetensors` and `few_steps.json`:
the number of steps, and the hashes of the weights that it was distilled from, because it is useless with others.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from landscape_video.files import hash_chunks, write_json


if TYPE_CHECKING:
    import torch
    from diffusers import DDIMScheduler, SchedulerMixin

    from pipeline_landscape_video import LandscapeVideoPipeline


FEW_STEPS = "few_steps"  # folder of the adapter, in a pipeline's folder and in OUTPUT_DIR
FACTS = "few_steps.json"
DISTILL = "training/distill_few_steps.py"


@dataclass(frozen=True)
class FewStepFacts:
    """What a few-step adapter is for.

    Args:
        steps: Denoising steps.
        guidance_scale: Guidance scale that is distilled into the weights.
        base: First 16 hex digits of the SHA-256 of each base model's weights, by its name.
    """

    steps: int
    guidance_scale: float
    base: dict[str, str]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the facts of an adapter. Raises `ValueError` if its folder has none."""
        path = folder / FACTS
        if not path.is_file():
            raise ValueError(f"{folder} has no {FACTS}: train a few-step adapter with {DISTILL}.")
        return cls(**json.loads(path.read_text(encoding="utf-8")))

    def write(self, folder: Path) -> None:
        """Write the facts beside the weights."""
        write_json(folder / FACTS, asdict(self))

    def check_base(self, base: dict[str, str]) -> None:
        """Raise `ValueError` unless the weights of the models are those that the adapter was distilled from."""
        for name, digest in self.base.items():
            if base.get(name) != digest:
                raise ValueError(
                    f"the few-step adapter was distilled from other weights of {name} ({digest}, got "
                    f"{base.get(name)}): distill it again with {DISTILL}."
                )


def base_hashes(model: Path, motion_adapter: Path) -> dict[str, str]:
    """Hash the weights that a few-step adapter changes.

    Args:
        model: Folder of the pipeline or image model.
        motion_adapter: Folder or file of the motion adapter.
    """
    return {"unet": hash_weights(model / "unet"), "motion_adapter": hash_weights(motion_adapter)}


def hash_weights(source: Path) -> str:
    """Return the first 16 hex digits of the SHA-256 of a weights file, or of all weights files of a folder."""
    files = sorted(source.glob("*.safetensors")) or sorted(source.glob("*.bin")) if source.is_dir() else [source]
    return hash_chunks(file.read_bytes() for file in files)[:16]


def few_step_scheduler(scheduler: "SchedulerMixin") -> "DDIMScheduler":
    """Return the scheduler that visits the timesteps of the distillation: DDIM from the last timestep on."""
    from diffusers import DDIMScheduler

    return DDIMScheduler.from_config(
        scheduler.config, timestep_spacing="trailing", set_alpha_to_one=True, clip_sample=False
    )


@contextmanager
def use_few_step_weights(pipe: "LandscapeVideoPipeline") -> Iterator[None]:
    """Merge the few-step adapter of the pipeline's folder into the UNet; afterwards it has its own weights again.

    Merged weights run as fast as the model's own, with `optimize()` as well. They are kept for the next time.

    Args:
        pipe: Pipeline that `load_pipeline` has loaded.

    Raises:
        ValueError: The folder has no adapter, or one of other weights.
    """
    parameters = dict(pipe.unet.named_parameters())
    if not hasattr(pipe, "few_step_weights"):
        pipe.few_step_weights = _merged_weights(pipe)
    own = {name: parameters[name].data for name in pipe.few_step_weights}
    for name, weight in pipe.few_step_weights.items():
        parameters[name].data = weight.to(parameters[name].device)
    try:
        yield
    finally:
        for name, weight in own.items():
            parameters[name].data = weight


def _merged_weights(pipe: "LandscapeVideoPipeline") -> dict[str, "torch.Tensor"]:
    """Return the weights of the UNet that the adapter changes, with the adapter merged into them."""
    import torch

    from landscape_video.generation.models import load_lora
    from pipeline_landscape_video.quiet_loading import less_chatter

    folder = getattr(pipe, "source_folder", None)
    if folder is None:
        raise ValueError("`preset` draft needs a pipeline that was loaded by `load_pipeline`.")
    if not (folder / FEW_STEPS).is_dir():
        raise ValueError(f"`preset` draft needs a few-step adapter, and {folder} has none: choose standard.")
    facts = FewStepFacts.read(folder / FEW_STEPS)
    try:
        facts.check_base(base_hashes(folder, pipe.source_motion_adapter))
    except ValueError as error:
        raise ValueError(f"`preset` draft: {error}") from None
    own = {name: weight.detach().clone() for name, weight in pipe.unet.named_parameters()}
    with less_chatter():
        load_lora(pipe, folder / FEW_STEPS, FEW_STEPS)
        pipe.fuse_lora(components=["unet"])
        pipe.unload_lora_weights()
    merged = {}
    for name, weight in pipe.unet.named_parameters():
        if not torch.equal(weight, own[name]):
            merged[name] = weight.detach().clone()
            weight.data = own[name]
    return merged
