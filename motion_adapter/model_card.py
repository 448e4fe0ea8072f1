"""Write the README.md of a repository on the Hub, from the templates `model_card.md` and `usage.py.jinja`."""

import json
import re
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from diffusers import MotionAdapter
from huggingface_hub import ModelCard, ModelCardData
from jinja2 import Template

from pipeline_landscape_video.embedded_model import EMBEDDED_MODEL
from pipeline_landscape_video.video_writing import SAMPLED_FPS

from .code_files import code_revision
from .hub import check_repo_id
from .markdown import markdown_table
from .other_programs import other_programs


HERE = Path(__file__).parent
LICENSES = json.loads((HERE / "hub_licenses.json").read_text(encoding="utf-8"))["licenses"]
USAGE = Template((HERE / "usage.py.jinja").read_text(encoding="utf-8"), trim_blocks=True, lstrip_blocks=True)
RECORD = "training.json"  # written by the training scripts beside an adapter
TAGS = ("landscape-painting", "animatediff", "motion-adapter")
PROMPT = "mist drifting over layered mountains, a boat on a calm lake"
PACKAGES = ("diffusers", "torch", "transformers")


@dataclass(frozen=True)
class CardFacts:
    """Facts for a model card that the weights do not contain.

    Args:
        repo_id: Name of the repository as `"user/name"`.
        license: The Hub's identifier of the license; `"other"` also needs `license_name`.
        base_model: Name on the Hub, or `"shanshui-tiny"`; may be `None` for a whole pipeline.
        full: Whether the repository holds the whole pipeline rather than the adapter.
        image_to_video: Whether that pipeline has a retention branch.
        training: Sections of the training table, as `{"settings": {...}, "figures": {...}, ...}`.
        sampling: Sampling settings that are stored with the pipeline, by the name of the argument.
        license_name, license_link: Name and URL of an `"other"` license.
    """

    repo_id: str
    license: str
    base_model: str | None = None
    full: bool = False
    image_to_video: bool = False
    training: dict[str, Any] = field(default_factory=dict)
    sampling: dict[str, Any] = field(default_factory=dict)
    license_name: str | None = None
    license_link: str | None = None


def model_card(facts: CardFacts, adapter: MotionAdapter) -> str:
    """Write the card of a repository with `adapter`, or with a pipeline that uses it.

    Raises:
        ValueError: See `check_license`, or `base_model` is not a name on the Hub.
    """
    check_license(facts.license, facts.license_name)
    on_the_hub = facts.base_model is not None and facts.base_model != EMBEDDED_MODEL
    if on_the_hub:
        check_repo_id(facts.base_model)
    data = ModelCardData(
        license=facts.license,
        license_name=facts.license_name,
        license_link=facts.license_link,
        library_name="diffusers",
        pipeline_tag="image-to-video" if facts.image_to_video else "text-to-video",
        base_model=facts.base_model if on_the_hub else None,
        tags=list(TAGS),
    )
    if on_the_hub and not facts.full:
        data["base_model_relation"] = "adapter"
    max_frames, training = adapter.config.motion_max_seq_length, training_rows(facts.training)
    versions = [("code", code_revision(facts.image_to_video)), *((name, version(name)) for name in PACKAGES)]
    card = ModelCard.from_template(
        data,
        template_path=str(HERE / "model_card.md"),
        facts=facts,
        parameters=f"{adapter.num_parameters() / 1e6:.1f}",
        max_frames=max_frames,
        embedded=facts.base_model == EMBEDDED_MODEL,
        usage=usage_code(facts, max_frames),
        sampling=", ".join(f"`{name}` {value:g}" for name, value in facts.sampling.items()),
        mode=adapter.config.get("sparse_causal_mode", "full"),
        norm=adapter.config.get("motion_norm", "clip"),
        other_programs=other_programs(adapter.config),
        training=markdown_table(("", ""), training) if training else None,
        versions=markdown_table(("", ""), versions),
    )
    return str(card).rstrip() + "\n"


def usage_code(facts: CardFacts, max_frames: int, commit: str | None = None) -> str:
    """Write Python code that loads the repository (at `commit`, if given) and saves a clip."""
    trigger_word = facts.training.get("settings", {}).get("trigger_word")
    return USAGE.render(
        facts=facts,
        embedded=facts.base_model == EMBEDDED_MODEL,
        commit=commit,
        prompt=json.dumps(f"{trigger_word}, {PROMPT}" if trigger_word else PROMPT, ensure_ascii=False),
        num_frames=min(16, max_frames),
        fps=f"{2 * SAMPLED_FPS:g}",  # interpolation doubles the frames
    )


def training_rows(training: dict[str, Any]) -> list[tuple[str, str]]:
    """List settings and results of training, section by section, without paths of the machine it ran on."""
    sections = [section for section in training.values() if isinstance(section, dict)]
    entries = [(name.replace("_", " "), value) for section in sections for name, value in section.items()]
    rows = [(name, ", ".join(map(str, value)) if isinstance(value, list) else str(value)) for name, value in entries]
    return [(name, text) for name, text in rows if not re.match(r"[/~\\]|[A-Za-z]:\\", text)]


def check_license(license: str, license_name: str | None) -> None:
    """Raise a `ValueError` for a license that the Hub does not know, or for `other` without a name."""
    if license not in LICENSES:
        raise ValueError(
            f"`license` must be one that the Hub knows, got {license!r}; choose one of {', '.join(LICENSES)}."
        )
    if license == "other" and not license_name:
        raise ValueError("`license` other needs a name: set `license_name`.")
