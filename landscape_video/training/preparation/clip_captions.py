"""Captions for prepared clips: from a CSV file, from files beside the raw videos, or from a model that sees the clip.

In this order: what a person wrote for a clip comes first, and a model is asked only where nobody wrote anything.
"""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from landscape_video.training.data.caption_tables import Refusal, captions_of, clean_caption, read_rows
from pipeline_landscape_video.video_io import iterate_video


LARGEST_SIDE_CAR = 2**20  # bytes
PROMPT = "Describe this landscape painting in one sentence: what it shows and what moves."
NO_CAPTION = "no caption"
MAX_TOKENS = 120  # of a model's caption

logger = logging.getLogger(__name__)

Describe = Callable[[list[Image.Image]], str]


def read_caption_table(path: Path | None) -> dict[str, list[str]]:
    """Captions by file name, from a CSV file or JSON lines (`file_name`, `text`); the name is that of a clip or of a
    raw video, relative to its folder.

    Raises:
        ValueError: naming each row that cannot be used.
    """
    refused: list[Refusal] = []
    table = {}
    for where, row in read_rows(path, refused) if path is not None else []:
        try:
            if not row.get("file_name"):
                raise ValueError(f"{where}: `file_name` is missing.")
            table[str(row["file_name"])] = captions_of(row, where)
        except ValueError as error:
            refused.append(Refusal(where, str(error).removeprefix(f"{where}: ")))
    if refused:
        raise ValueError("\n".join(f"{where}: {reason}" for where, reason in refused))
    return table


def take_written_captions(
    clips: list[dict[str, Any]], source_dir: Path, table: dict[str, list[str]], others_follow: bool
) -> None:
    """Give each clip the "texts" that somebody wrote; one whose caption cannot be used is refused.

    Args:
        table: of `read_caption_table`.
        others_follow: a clip that nobody wrote anything for is not refused, for a model will be asked.
    """
    unknown = set(table) - {clip["name"] + ".mp4" for clip in clips} - {clip["source"] for clip in clips}
    if unknown:
        logger.warning("%d rows of captions name no clip and no video, %r for one.", len(unknown), min(unknown))
    for clip in clips:
        try:
            texts = table.get(clip["name"] + ".mp4") or table.get(clip["source"])
            clip["texts"] = texts or _side_car(source_dir / clip["source"])
        except ValueError as error:
            clip["refused"] = [f"caption: {error}"]
            continue
        if not clip["texts"] and not others_follow:
            clip["refused"] = [NO_CAPTION]


def ask_for_captions(clips: list[dict[str, Any]], work_dir: Path, model: str, prompt: str) -> None:
    """Give each clip without "texts" what a model says of it; where that is no caption, the clip is refused.

    What the model said is kept in the work folder, so that a run that was stopped does not ask again.

    Args:
        model: the folder or hub id of any image-text-to-text model of transformers.
    """
    silent = [clip for clip in clips if not clip["texts"]]
    said_path = work_dir / "captions.jsonl"
    said = {}
    if said_path.is_file():
        for _, row in read_rows(said_path, refused=[]):
            said[tuple(row["key"])] = row["text"]
    describe = None
    with said_path.open("a", encoding="utf-8") as file:
        for clip in tqdm(silent, desc="Captioning", unit="clip", disable=None):
            path = work_dir / "clips" / f"{clip['name']}.mp4"
            key = (clip["name"], str(path.stat().st_mtime_ns), model, prompt)
            if key not in said:
                describe = describe or load_captioner(model, prompt)
                said[key] = describe(_pictures(path))
                file.write(json.dumps({"key": key, "text": said[key]}) + "\n")
                file.flush()
            try:
                clip["texts"] = [clean_caption(said[key])]
            except ValueError as error:
                clip["refused"] = [f"caption of {model}: {error}"]


def load_captioner(model: str, prompt: str) -> Describe:
    """A function that describes pictures with the given model.

    Raises:
        ValueError: in one line, why it cannot be loaded.
    """
    import torch
    from transformers import pipeline

    device = 0 if torch.cuda.is_available() else -1
    try:
        captioner = pipeline("image-text-to-text", model=model, device=device, dtype="auto")
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"--caption_model {model}: cannot be loaded as an image-text-to-text model ({reason})."
        ) from None

    def describe(pictures: list[Image.Image]) -> str:
        if getattr(captioner.processor, "chat_template", None) is None:  # BLIP, GIT: one picture, no conversation
            question = {"images": pictures[len(pictures) // 2], "text": prompt}
        else:
            content = [{"type": "image", "image": picture} for picture in pictures]
            content.append({"type": "text", "text": prompt})
            question = {"text": [{"role": "user", "content": content}]}
        # The same answer each time.
        settings = {"generate_kwargs": {"do_sample": False}, "max_new_tokens": MAX_TOKENS, "return_full_text": False}
        return captioner(**question, **settings)[0]["generated_text"].strip()

    return describe


def _side_car(video: Path) -> list[str]:
    """The caption in `video.txt` beside `video.mp4`, for all its clips."""
    path = video.with_suffix(".txt")
    if not path.is_file():
        return []
    if path.stat().st_size > LARGEST_SIDE_CAR:
        raise ValueError(f"{path.name} has {path.stat().st_size} bytes, too many for a caption.")
    try:
        return [clean_caption(path.read_bytes().decode("utf-8-sig"))]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} has to be UTF-8: {error}.") from None


def _pictures(path: Path, count: int = 3) -> list[Image.Image]:
    """Pictures from the beginning, middle and end of a clip."""
    frames = [frame.pixels for frame in iterate_video(path)]
    return [Image.fromarray(frames[number]) for number in np.linspace(0, len(frames) - 1, count).round().astype(int)]
