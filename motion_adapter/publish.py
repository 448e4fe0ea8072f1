"""Publish a trained folder on the Hub: load it, export it, validate the export in a fresh process, push it."""

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline, MotionAdapter
from torch import nn

from pipeline_landscape_video import LandscapeImageToVideoPipeline, LandscapeVideoPipeline, resolve_sampling
from pipeline_landscape_video.embedded_model import EMBEDDED_MODEL

from .build import extract_motion_adapter
from .code_files import BRANCH
from .export import export_adapter, export_pipeline
from .hub import check_repo_id, hub_errors, push_folder
from .model_card import RECORD, CardFacts, model_card, usage_code
from .sources import local_path
from .validate import check_export, check_loads_elsewhere, sample_frames
from .weights_files import load_adapter, stored_dtype


@dataclass(frozen=True)
class Release:
    """What was pushed.

    Args:
        commit: Id of the commit.
        usage: Python code that loads exactly this commit.
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
    """Push a motion adapter or a whole pipeline in one commit, once a fresh process generates the same frames with it.

    Args:
        folder: Folder of an adapter or a pipeline, or the output of `train_motion.py`, whose adapter is then pushed.
        facts: Facts for the card. `base_model` may be `None` if the training record names it. The base model is loaded
            here; with `full`, it may be the folder of a pipeline. `training` defaults to the training record.
        dtype: Dtype of the pushed weights; `None` keeps that of each file.
        private: Whether a new repository is private.
        report: Called with a line before each step.

    Raises:
        ValueError: The folder has nothing to push, the base model is not named, the export is invalid (see
            `check_export`, `check_loads_elsewhere`), or the Hub refuses.
        ConnectionError: See `push_folder`.
    """
    check_repo_id(facts.repo_id)
    source = find_source(Path(folder))
    facts = complete_facts(facts, source)

    # 1. Load what readers will load, and generate the frames to compare
    report(f"loading {source}")
    pipe, adapter = load(source, facts, dtype)
    frames = sample_frames(pipe)

    # 2. Describe
    has_branch = BRANCH in pipe.components
    sampling = resolve_sampling(pipe.scheduler.config, "image" if has_branch else "text") if facts.full else {}
    card_facts = replace(facts, image_to_video=has_branch, sampling=sampling)
    if not is_public(facts.base_model):
        card_facts = replace(card_facts, base_model=None)
    card = model_card(card_facts, adapter)

    # 3. Export, validate, push
    with tempfile.TemporaryDirectory() as scratch:
        export = Path(scratch, "export")
        report("exporting")
        if facts.full:
            export_pipeline(pipe, export, dtype or stored_dtypes(source, facts.base_model), card=card)
        else:
            export_adapter(adapter, export, dtype or stored_dtype(source), card=card)
        report("checking the files, and the frames that a fresh process generates with them")
        check_export(export, dtype)
        check_loads_elsewhere(export, frames, None if facts.full else base_folder(facts.base_model))
        report(f"pushing to {facts.repo_id}")
        commit = push_folder(export, facts.repo_id, f"Add {'pipeline' if facts.full else 'motion adapter'}", private)
    return Release(commit, usage_code(card_facts, adapter.config.motion_max_seq_length, commit))


def find_source(folder: Path) -> Path:
    """Return the folder of the pipeline or adapter in `folder`. Raises a `ValueError` if it has none."""
    if (folder / BRANCH / "config.json").is_file() and not is_pipeline(folder):
        raise ValueError(
            f"{folder}: holds an image retention branch, which works only as part of its pipeline: push the pipeline "
            "with `train_image_retention.py --push_to_hub`."
        )
    for candidate in (folder, folder / "motion_adapter"):
        if is_pipeline(candidate) or (candidate / "config.json").is_file():
            return candidate
    problem = "holds neither a pipeline nor a motion adapter" if folder.is_dir() else "no such folder"
    raise ValueError(f"{folder}: {problem}.")


def is_pipeline(folder: Path) -> bool:
    """Return whether a folder contains a pipeline."""
    return (folder / "model_index.json").is_file()


def complete_facts(facts: CardFacts, source: Path) -> CardFacts:
    """Add what the training record in `source` says. Raises a `ValueError` if the base model is unknown or local."""
    file = source / RECORD
    record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    base_model = facts.base_model or record.get("base_model")
    full = facts.full or is_pipeline(source)
    if base_model is None and not is_pipeline(source):
        raise ValueError(f"{source}: the base model of this adapter is unknown; set `base_model`.")
    if not full and not is_public(base_model):
        raise ValueError(
            f"`base_model` must be a name on the Hub, got the folder {base_model}; set `full` to push it as well."
        )
    return replace(facts, base_model=base_model, full=full, training=facts.training or record)


def is_public(base_model: str | None) -> bool:
    """Return whether the base model has the same name on other machines: the bundled one, or one on the Hub."""
    return base_model is not None and (base_model == EMBEDDED_MODEL or local_path(base_model) is None)


def load(
    source: Path, facts: CardFacts, dtype: torch.dtype | None
) -> tuple[LandscapeVideoPipeline | LandscapeImageToVideoPipeline, MotionAdapter]:
    """Load the pipeline to push, or one to try the adapter with, on the CPU in float32; and its adapter.

    Weights that will be pushed in `dtype` are rounded to it, as readers get them.
    """
    if is_pipeline(source):
        has_branch = (source / BRANCH).is_dir()
        pipe = (LandscapeImageToVideoPipeline if has_branch else LandscapeVideoPipeline).from_pretrained(source)
        adapter = extract_motion_adapter(pipe.unet)
    else:
        adapter = load_adapter(source).to(dtype or torch.float32).to(torch.float32)
        pipe = LandscapeVideoPipeline.from_pretrained(base_folder(facts.base_model), motion_adapter=adapter)
    if facts.full and dtype is not None:
        for part in pipe.components.values():
            if isinstance(part, nn.Module):
                part.to(dtype).to(torch.float32)
    return pipe, adapter


def stored_dtypes(source: Path, base_model: str | None) -> dict[str, torch.dtype]:
    """Return the dtypes of the files from which `load` made the components of a pipeline, by component."""
    base = source if is_pipeline(source) else base_folder(base_model)
    dtypes = {folder.name: stored_dtype(folder) for folder in base.iterdir() if folder.is_dir()}
    return dtypes if base is source else dtypes | {"motion_adapter": stored_dtype(source)}


def base_folder(base_model: str) -> Path:
    """Return the folder of the base model; one on the Hub is downloaded."""
    if (folder := local_path(base_model)) is not None:
        return folder
    with hub_errors(base_model):
        return Path(DiffusionPipeline.download(base_model))
