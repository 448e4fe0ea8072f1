"""
Resolve sampling settings: those that a call gives, those that its model recommends, those of the papers.

A model recommends settings in `scheduler_config.json`, by task, for example:

    "_landscape_sampling": {
        "text": {"guidance_scale": 2.0, "eta": 1.0},
        "image": {"guidance_scale": 4.0, "eta": 0.0}
    }

diffusers keeps entries with a leading underscore when it loads and saves a scheduler, and when another scheduler is
made with `from_config`. It does not read them, so stock pipelines load the model, too.
"""

from collections.abc import Mapping
from typing import Any


SAMPLING_ENTRY = "_landscape_sampling"

# NADM's inference settings. DreamVideo has none; an image guidance scale above 1.5 adds contrast (DreamVideo, Fig. 3).
PAPER_SAMPLING = {
    "text": {"num_inference_steps": 25, "guidance_scale": 8.0, "eta": 0.0},
    "image": {"num_inference_steps": 25, "guidance_scale": 8.0, "image_guidance_scale": 1.5, "eta": 0.0},
}


def resolve_sampling(scheduler_config: Mapping[str, Any], task: str, **given: Any) -> dict[str, Any]:
    """
    Return the sampling settings of a task.

    Args:
        scheduler_config: Config of the model's scheduler.
        task: `"text"` for text to video, `"image"` for image to video.
        **given: Settings that a call gives. `None` asks for the recommended value.

    Returns:
        Value of each setting in `PAPER_SAMPLING[task]` and in `given`.

    Raises:
        ValueError: The model recommends a setting that the task does not have.
    """
    recommended = scheduler_config.get(SAMPLING_ENTRY, {}).get(task, {})
    unknown = sorted(recommended.keys() - PAPER_SAMPLING[task].keys())
    if unknown:
        raise ValueError(
            f"`{SAMPLING_ENTRY}` of the scheduler must hold settings among {', '.join(PAPER_SAMPLING[task])} for"
            f" {task!r}, got {unknown[0]!r}; correct scheduler_config.json."
        )
    defaults = PAPER_SAMPLING[task] | recommended
    return defaults | {name: value for name, value in given.items() if value is not None}
