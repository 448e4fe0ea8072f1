"""From a trained folder to a repository on the Hub: loaded, exported, validated in a fresh process, then pushed."""

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline, MotionAdapter
from torch import nn

from pipeline_landscape_video import SHANSHUI_TINY, LandscapeImageToVideoPipeline, LandscapeVideoPipeline
from pipeline_landscape_video.embedded_model import EMBEDDED_MODEL

from .build import extract_motion_adapter
from .code_files import BRANCH
from .hub import check_repo_id, hub_errors, push_folder
from .model_card import RECORD, CardFacts, model_card, usage_lines
from .publish import export_adapter, export_pipeline, load_adapter
from .validate import check_export, check_loads_elsewhere, sample_frames
from .weights_files import stored_dtype


@dataclass(frozen=True)
class Release:
    """What was pushed.

    Args:
        commit: its id.
        usage: lines of Python that load exactly this commit.
    """

    commit: str
    usage: str


def publish(
    folder: str | Path,
    facts: CardFacts,
    dtype: torch.dtype | None = None,
    private: bool = False,
    report: Callable[[str], None] = lambda line: None,
) -> Release:
    """
    Push a motion adapter, or a whole pipeline, in one commit, after it was seen to load elsewhere and paint the same.

    Args:
        folder: of an adapter, of a pipeline, or what `train_motion.py` wrote (the adapter in it is meant).
        facts: for the card. `base_model` may be None where the record of the training names it; it is loaded here, so
            it may also be the folder of a pipeline, if `full`. `training` is taken from the record if it is empty.
        dtype: of the weights in the repository; as they are if `None`.
        private: whether a repository that is made is private.
        report: is given a line before each step.

    Raises:
        ValueError: the folder holds nothing to push, the base model is not named, a check of the export failed (see
            `check_export`, `check_loads_elsewhere`), or the Hub refuses.
        ConnectionError: see `push_folder`.
    """
    check_repo_id(facts.repo_id)
    source = find_source(Path(folder))
    facts = completed_facts(facts, source)
    report(f"loading {source}")
    pipe, adapter = load(source, facts)
    if dtype is not None:
        for part in pipe.components.values() if facts.full else [adapter, *motion_modules(pipe)]:
            if isinstance(part, nn.Module):
                part.to(dtype).to(torch.float32)  # what readers get, who load in float32
    frames = sample_frames(pipe)
    card_facts = facts if named_on_a_card(facts.base_model) else replace(facts, base_model=None)
    card_facts = replace(card_facts, takes_pictures=BRANCH in pipe.components)
    card = model_card(card_facts, adapter)
    with tempfile.TemporaryDirectory() as scratch:
        export = Path(scratch, "export")
        report("exporting")
        if facts.full:
            if dtype is None:
                restore_dtypes(pipe, source, facts.base_model)
            export_pipeline(pipe, export, dtype, card=card)
        else:
            export_adapter(adapter, export, dtype or stored_dtype(source), card=card)
        report("checking the files, and what a fresh process paints with them")
        check_export(export, dtype)
        check_loads_elsewhere(export, frames, None if facts.full else base_folder(facts.base_model))
        report(f"pushing to {facts.repo_id}")
        commit = push_folder(export, facts.repo_id, f"Add {'pipeline' if facts.full else 'motion adapter'}", private)
    return Release(commit, "\n".join(usage_lines(card_facts, adapter.config.motion_max_seq_length, commit)))


def find_source(folder: Path) -> Path:
    """The folder of the pipeline or adapter that `folder` means. Raises a `ValueError` where there is none."""
    if (folder / BRANCH / "config.json").is_file() and not (folder / "model_index.json").is_file():
        raise ValueError(
            f"{folder}: holds a branch that sees pictures, which is of use in its pipeline only: "
            "`train_image_retention.py --push_to_hub` pushes all of that."
        )
    for candidate in (folder, folder / "motion_adapter"):
        if (candidate / "model_index.json").is_file() or (candidate / "config.json").is_file():
            return candidate
    problem = "holds neither a pipeline nor a motion adapter" if folder.is_dir() else "there is no such folder"
    raise ValueError(f"{folder}: {problem}.")


def completed_facts(facts: CardFacts, source: Path) -> CardFacts:
    """`facts` with what the record of the training adds. Raises a `ValueError` where no base model is named."""
    record = read_record(source)
    is_pipeline = (source / "model_index.json").is_file()
    base_model = facts.base_model or record.get("base_model")
    if base_model is None and not is_pipeline:
        raise ValueError(f"{source}: which base model is it for? Name it with --base-model.")
    full = facts.full or is_pipeline
    if not full and not named_on_a_card(base_model):
        raise ValueError(
            f"{base_model}: is a folder of this machine; name the base model as on the Hub, or push it, too (--full)."
        )
    return replace(facts, base_model=base_model, full=full, training=facts.training or record)


def read_record(source: Path) -> dict[str, Any]:
    """What `train_motion.py` wrote beside the adapter, empty without."""
    file = source / RECORD
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def named_on_a_card(base_model: str | None) -> bool:
    """Whether others know the base model by that name."""
    if base_model is None:
        return False
    return base_model == EMBEDDED_MODEL or not (
        Path(base_model).expanduser().exists() or base_model.startswith((".", "/", "~"))
    )


def load(source: Path, facts: CardFacts) -> tuple[LandscapeVideoPipeline, MotionAdapter]:
    """The pipeline to push, or to try the adapter with, on the CPU in float32; and its adapter."""
    if (source / "model_index.json").is_file():
        takes_pictures = (source / BRANCH).is_dir()
        pipe = (LandscapeImageToVideoPipeline if takes_pictures else LandscapeVideoPipeline).from_pretrained(source)
        return pipe, extract_motion_adapter(pipe.unet)
    adapter = load_adapter(source).to(torch.float32)
    base = base_folder(facts.base_model)
    return LandscapeVideoPipeline.from_pretrained(base, motion_adapter=adapter), adapter


def restore_dtypes(pipe: LandscapeVideoPipeline, source: Path, base_model: str | None) -> None:
    """Give the weights of `pipe`, which were read as float32, the dtypes of their files again."""
    is_pipeline = (source / "model_index.json").is_file()
    base = source if is_pipeline else base_folder(base_model)
    for name, part in pipe.components.items():
        if isinstance(part, nn.Module) and name not in ("unet", "motion_adapter"):
            nn.Module.to(part, stored_dtype(base / name))
    adapter = source / "motion_adapter" if is_pipeline else source
    dtypes = {True: stored_dtype(adapter), False: stored_dtype(base / "unet")}
    for name, parameter in [*pipe.unet.named_parameters(), *pipe.unet.named_buffers()]:
        parameter.data = parameter.data.to(dtypes[".motion_modules." in name])


def motion_modules(pipe: LandscapeVideoPipeline) -> list[nn.Module]:
    """The adapter's layers where the pipeline runs them: in its UNet."""
    return [module for name, module in pipe.unet.named_modules() if name.endswith(".motion_modules")]


def base_folder(base_model: str) -> Path:
    """The folder of the base model, fetched where it is not on this machine yet."""
    if base_model == EMBEDDED_MODEL:
        return SHANSHUI_TINY
    if not named_on_a_card(base_model):
        return Path(base_model).expanduser()
    with hub_errors(base_model):
        return Path(DiffusionPipeline.download(base_model))
