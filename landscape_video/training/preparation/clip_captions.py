"""Caption prepared clips from a table, from files beside the raw videos, or with a model that sees the clip.

In this order: what a person wrote for a clip comes first, and a model is asked only about clips without it.
"""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from landscape_video.training.data.caption_tables import (
    MAX_CAPTION_FILE,
    RejectedClip,
    captions_of,
    clean_caption,
    decode_caption_file,
    raise_rejected,
    read_table,
)
from pipeline_landscape_video.video_io import iterate_video


PROMPT = "Describe this landscape painting in one sentence: what it shows and what moves."
NO_CAPTION = "no caption"
MAX_TOKENS = 120  # of a model's caption

logger = logging.getLogger(__name__)

Describe = Callable[[list[Image.Image]], str]


def read_caption_table(path: Path) -> dict[str, list[str]]:
    """Read captions by file name from a CSV file or JSON lines with the columns `file_name` and `text`.

    A file name is that of a clip, or that of a raw video relative to its folder, for all clips of the video.

    Raises:
        ValueError: Rows cannot be used; the message names each of them.
    """

    def named_captions(row: dict[str, Any]) -> tuple[str, list[str]]:
        if not row.get("file_name"):
            raise ValueError("`file_name` is missing.")
        return str(row["file_name"]), captions_of(row)

    rejected: list[RejectedClip] = []
    table = dict(read_table(path, named_captions, rejected))
    raise_rejected(rejected)
    return table


def take_written_captions(
    clips: list[dict[str, Any]], source_dir: Path, table: dict[str, list[str]], others_follow: bool
) -> None:
    """Give each clip the "texts" that somebody wrote; a clip whose caption cannot be used is rejected.

    Args:
        clips: Clips of `prepare_source`.
        source_dir: Folder of the raw videos.
        table: Captions of `read_caption_table`.
        others_follow: Keep clips without captions, because a model will be asked about them.
    """
    unknown = set(table) - {clip["name"] + ".mp4" for clip in clips} - {clip["source"] for clip in clips}
    if unknown:
        logger.warning(
            "%d captions are for files that are neither a clip nor a video, such as %r.", len(unknown), min(unknown)
        )
    for clip in clips:
        texts = table.get(clip["name"] + ".mp4") or table.get(clip["source"])
        try:
            clip["texts"] = texts or _sidecar(source_dir / clip["source"])
        except ValueError as error:
            clip["refused"] = [f"caption: {error}"]
            continue
        if not clip["texts"] and not others_follow:
            clip["refused"] = [NO_CAPTION]


def ask_for_captions(clips: list[dict[str, Any]], work_dir: Path, model: str, prompt: str) -> None:
    """Give each clip without "texts" a caption by a model; a clip whose answer is not a caption is rejected.

    Answers are kept in the work folder, so that a stopped run does not ask for them again.

    Args:
        clips: Clips of `take_written_captions`.
        work_dir: Folder of the clips and the answers.
        model: Folder or Hub id of any image-text-to-text model of transformers.
        prompt: Question to ask the model.
    """
    answers_path = work_dir / "captions.jsonl"
    answers = {}
    if answers_path.is_file():
        answers = dict(read_table(answers_path, lambda row: (tuple(row["key"]), row["text"]), rejected=[]))
    describe = None
    with answers_path.open("a", encoding="utf-8") as file:
        silent = [clip for clip in clips if not clip["texts"]]
        for clip in tqdm(silent, desc="Captioning", unit="clip", disable=None):
            path = work_dir / "clips" / f"{clip['name']}.mp4"
            key = (clip["name"], str(path.stat().st_mtime_ns), model, prompt)
            if key not in answers:
                describe = describe or load_captioner(model, prompt)
                answers[key] = describe(_sample_images(path))
                file.write(json.dumps({"key": key, "text": answers[key]}) + "\n")
                file.flush()
            try:
                clip["texts"] = [clean_caption(answers[key])]
            except ValueError as error:
                clip["refused"] = [f"caption of {model}: {error}"]


def load_captioner(model: str, prompt: str) -> Describe:
    """Load a model as a function that describes images.

    Raises:
        ValueError: The model cannot be loaded; the reason in one line.
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

    def describe(images: list[Image.Image]) -> str:
        if getattr(captioner.processor, "chat_template", None) is None:  # BLIP, GIT: one image, no conversation
            question = {"images": images[len(images) // 2], "text": prompt}
        else:
            content = [{"type": "image", "image": image} for image in images]
            content.append({"type": "text", "text": prompt})
            question = {"text": [{"role": "user", "content": content}]}
        # Greedy decoding gives the same answer each time.
        settings = {"generate_kwargs": {"do_sample": False}, "max_new_tokens": MAX_TOKENS, "return_full_text": False}
        return captioner(**question, **settings)[0]["generated_text"].strip()

    return describe


def _sidecar(video: Path) -> list[str]:
    """Caption from `video.txt` beside `video.mp4`, for all clips of the video."""
    path = video.with_suffix(".txt")
    if not path.is_file():
        return []
    with path.open("rb") as file:
        data = file.read(MAX_CAPTION_FILE + 1)  # one byte more shows that a file is too large
    return [clean_caption(decode_caption_file(path.name, data))]


def _sample_images(path: Path, count: int = 3) -> list[Image.Image]:
    """Frames from the beginning, middle and end of a clip."""
    frames = [frame.pixels for frame in iterate_video(path)]
    return [Image.fromarray(frames[number]) for number in np.linspace(0, len(frames) - 1, count).round().astype(int)]
