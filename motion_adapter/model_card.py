"""The README.md of a repository on the Hub, from `model_card.md`, and what is wrong with one."""

import json
import re
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from diffusers import MotionAdapter
from huggingface_hub import ModelCard, ModelCardData, RepoCard
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from pipeline_landscape_video.embedded_model import EMBEDDED, EMBEDDED_MODEL, EMBEDDED_WITH_PICTURES
from pipeline_landscape_video.video_writing import SAMPLED_FPS

from .code_files import code_revision


HERE = Path(__file__).parent
VOCABULARY = json.loads((HERE / "hub_vocabulary.json").read_text(encoding="utf-8"))
RECORD = "training.json"  # what `train_motion.py` writes beside an adapter
TAGS = ("landscape-painting", "animatediff", "motion-adapter")
PROMPT = "mist drifting over layered mountains, a boat on a calm lake"
PACKAGES = ("diffusers", "torch", "transformers")


@dataclass(frozen=True)
class CardFacts:
    """What a card says that the weights do not.

    Args:
        repo_id: as `"user/name"`.
        license: an identifier of the Hub's; with `"other"`, `license_name` is needed.
        base_model: a name on the Hub, or `"shanshui-tiny"`; may be None for a full pipeline.
        full: whether the repository holds the whole pipeline rather than the adapter.
        takes_pictures: whether that pipeline has an image retention branch.
        training: `{"settings": {...}, "figures": {...}, ...}`, shown as a table; see `training_rows`.
    """

    repo_id: str
    license: str
    base_model: str | None = None
    full: bool = False
    takes_pictures: bool = False
    training: dict[str, Any] = field(default_factory=dict)
    license_name: str | None = None
    license_link: str | None = None


def model_card(facts: CardFacts, adapter: MotionAdapter) -> str:
    """
    The card of a repository with `adapter`, or with a pipeline that moves by it.

    Raises:
        ValueError: as `check_card`.
    """
    on_the_hub = facts.base_model is not None and facts.base_model != EMBEDDED_MODEL
    data = ModelCardData(
        license=facts.license,
        license_name=facts.license_name,
        license_link=facts.license_link,
        library_name="diffusers",
        pipeline_tag="image-to-video" if facts.takes_pictures else "text-to-video",
        base_model=facts.base_model if on_the_hub else None,
        tags=list(TAGS),
    )
    if on_the_hub and not facts.full:
        data["base_model_relation"] = "adapter"
    card = ModelCard.from_template(
        data,
        template_path=str(HERE / "model_card.md"),
        repo_id=facts.repo_id,
        title=facts.repo_id.split("/")[-1],
        full=facts.full,
        takes_pictures=facts.takes_pictures,
        base_text=base_text(facts.base_model),
        parameters=f"{adapter.num_parameters() / 1e6:.1f}",
        max_frames=adapter.config.motion_max_seq_length,
        needs_package=facts.base_model == EMBEDDED_MODEL and not facts.full,
        usage="\n".join(usage_lines(facts, adapter.config.motion_max_seq_length)),
        mode=adapter.config.get("sparse_causal_mode", "full"),
        training=training_rows(facts.training),
        code_revision=code_revision(facts.takes_pictures),
        environment=[(name, version(name)) for name in PACKAGES],
    )
    text = str(card).rstrip() + "\n"
    check_card(text)
    return text


def usage_lines(facts: CardFacts, max_frames: int, commit: str | None = None) -> list[str]:
    """Lines of Python that load the repository and write a clip; with a `commit`, they load that one for ever."""
    repo = json.dumps(facts.repo_id)
    trigger_word = facts.training.get("settings", {}).get("trigger_word")
    prompt = f"{trigger_word}, {PROMPT}" if trigger_word else PROMPT
    revision = f', revision="{commit}"' if commit else ""
    custom_revision = f', custom_revision="{commit}"' if commit else ""
    lines = ["import torch", "from diffusers import DiffusionPipeline" + ("" if facts.full else ", MotionAdapter")]
    lines += ["from diffusers.utils import export_to_gif"]
    if facts.base_model == EMBEDDED_MODEL and not facts.full:
        lines += ["from pipeline_landscape_video import SHANSHUI_TINY"]
    lines += ["", "gpu = torch.cuda.is_available()", "dtype = torch.float16 if gpu else torch.float32"]
    if facts.full:
        lines += ["pipe = DiffusionPipeline.from_pretrained(", f"    {repo}{revision},"]
    else:
        base = "SHANSHUI_TINY" if facts.base_model == EMBEDDED_MODEL else json.dumps(facts.base_model)
        lines += [
            f"adapter = MotionAdapter.from_pretrained({repo}{revision}, dtype=dtype)",
            "pipe = DiffusionPipeline.from_pretrained(",
            f"    {base}, motion_adapter=adapter,",
        ]
    # The index of a full pipeline names its code; one that takes pictures is not what `custom_pipeline` means.
    custom_pipeline = "" if facts.takes_pictures else f"custom_pipeline={repo}{custom_revision}, "
    sampling = ""
    if facts.base_model == EMBEDDED_MODEL:
        best = EMBEDDED_WITH_PICTURES if facts.takes_pictures else EMBEDDED
        eta = f"eta={best.eta:g}, " if best.eta else ""
        sampling = f"guidance_scale={best.guidance_scale:g}, {eta}"
    if facts.takes_pictures:
        lines = ["from PIL import Image", *lines]
        sampling += 'guidance_order="picture_first", hold_first_frame=True, '
    return [
        *lines,
        f"    {custom_pipeline}trust_remote_code=True, dtype=dtype,",
        ').to("cuda" if gpu else "cpu")',
        f"prompt = {json.dumps(prompt, ensure_ascii=False)}",
        "generator = torch.Generator().manual_seed(0)",
        *(['painting = Image.open("painting.png")'] if facts.takes_pictures else []),
        f"clips = pipe(prompt, {'painting, ' if facts.takes_pictures else ''}num_frames={min(16, max_frames)},"
        f" num_inference_steps=25, {sampling}generator=generator).frames",
        f'export_to_gif(clips[0], "landscape.gif", fps={2 * SAMPLED_FPS:g})',
    ]


def base_text(base_model: str | None) -> str:
    """The base model as the text names it."""
    if base_model is None:
        return "not on the Hub"
    if base_model == EMBEDDED_MODEL:
        return "shanshui-tiny, which is part of the `landscape-video` package"
    return f"[{base_model}](https://huggingface.co/{base_model})"


def training_rows(training: dict[str, Any]) -> list[tuple[str, str]]:
    """A table of what is known about the training, sections one after the other, without paths of a machine."""
    rows = []
    for section in training.values():
        if not isinstance(section, dict):
            continue
        for name, value in section.items():
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            if not re.match(r"[/~\\]|[A-Za-z]:\\", text):
                rows.append((name.replace("_", " "), " ".join(text.replace("|", "/").split())))
    return rows


def check_card(text: str) -> None:
    """
    Check a card against what the Hub knows (lists of tasks and licences as of the version named in
    `hub_vocabulary.json`).

    Raises:
        ValueError: what is missing or unknown.
    """
    if not re.match(r"---\n.*?\n---\n", text, re.DOTALL):
        raise ValueError("The card does not begin with its metadata between two lines of ---.")
    data = RepoCard(text, ignore_metadata_errors=False).data  # a `ModelCard` would drop doubled tags
    check_license(data.get("license"), data.get("license_name"))
    if data.get("pipeline_tag") not in VOCABULARY["tasks"]:
        raise ValueError(f"The Hub knows no task {data.get('pipeline_tag')!r}.")
    if data.get("library_name") != "diffusers":
        raise ValueError(f"The card's library_name is {data.get('library_name')!r}, but has to be 'diffusers'.")
    tags = data.get("tags") or []
    if len(set(tags)) < len(tags):
        raise ValueError(f"The card names a tag twice: {', '.join(tags)}.")
    if data.get("base_model") is not None:
        try:
            validate_repo_id(data.get("base_model"))
        except HFValidationError as error:
            raise ValueError(f"The card's base_model is no name on the Hub: {error}") from error


def check_license(license: str, license_name: str | None) -> None:
    """Raise a `ValueError` for a licence that the Hub does not know, or an `other` one without a name."""
    if license not in VOCABULARY["licenses"]:
        raise ValueError(f"The Hub knows no licence {license!r}; it knows {', '.join(VOCABULARY['licenses'])}.")
    if license == "other" and not license_name:
        raise ValueError("The licence `other` needs a name (--license-name).")
