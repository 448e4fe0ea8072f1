"""Draw contact sheets: frames of rendered and generated clips side by side, with their prompts."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont


CHINESE_FONTS = (
    "NotoSansCJK-Regular.ttc", "NotoSerifCJK-Regular.ttc", "SourceHanSansSC-Regular.otf", "wqy-microhei.ttc",
    "PingFang.ttc", "msyh.ttc", "simsun.ttc",
)  # fmt: skip
FRAMES = 4  # of each clip
FONT_SIZE, LINE_HEIGHT, GAP = 13, 18, 16  # pixels; the gap is between the two clips


def write_contact_sheets(
    folder: Path,
    language: str,
    prompts: Sequence[str],
    rendered: Sequence[np.ndarray],
    generated: Sequence[np.ndarray],
    rows: int = 10,
    pages: int = 4,
) -> None:
    """Write `sheet_LANGUAGE_1.png`, ...: four frames of each rendered clip, four of the generated one, and the prompt.

    Chinese is drawn where the system has a font for it. The prompts are also in `prompts_LANGUAGE.txt`, numbered.
    """
    folder.mkdir(parents=True, exist_ok=True)
    numbered = [f"{number}. {prompt}" for number, prompt in enumerate(prompts, start=1)]
    (folder / f"prompts_{language}.txt").write_text("\n".join(numbered) + "\n", encoding="utf-8")
    font = caption_font(language)
    for page, start in enumerate(range(0, min(len(prompts), rows * pages), rows), start=1):
        strips = [
            contact_strip(numbered[i] if font else f"{i + 1}.", rendered[i], generated[i], font)
            for i in range(start, min(start + rows, len(prompts)))
        ]
        Image.fromarray(np.concatenate(strips)).save(folder / f"sheet_{language}_{page}.png")


def caption_font(language: str) -> ImageFont.FreeTypeFont | None:
    """A font that has the letters of a language, or None."""
    if language == "en":
        return ImageFont.load_default(FONT_SIZE)
    for name in CHINESE_FONTS:
        try:
            return ImageFont.truetype(name, FONT_SIZE)
        except OSError:
            continue
    return None


def contact_strip(
    text: str, rendered: np.ndarray, generated: np.ndarray, font: ImageFont.FreeTypeFont | None
) -> np.ndarray:
    """Draw frames of both clips in a row, and the text below: (height, width, 3) uint8."""
    frames = [
        np.concatenate(clip[np.linspace(0, len(clip) - 1, FRAMES).round().astype(int)], axis=1)
        for clip in (rendered, generated)
    ]
    images = np.concatenate([frames[0], np.full((len(frames[0]), GAP, 3), 255, np.uint8), frames[1]], axis=1)
    font = font or ImageFont.load_default(FONT_SIZE)
    is_wide = bool(text) and max(text) > "\u2e7f"  # Chinese characters are about twice as wide as Latin letters
    letters = max(1, int(images.shape[1] / (font.size * (1.0 if is_wide else 0.5))))
    lines = textwrap.wrap(text, letters)
    label = Image.new("RGB", (images.shape[1], 10 + LINE_HEIGHT * max(len(lines), 1)), "white")
    draw = ImageDraw.Draw(label)
    for number, line in enumerate(lines):
        draw.text((4, 2 + LINE_HEIGHT * number), line, "black", font)
    return np.concatenate([images, np.asarray(label)])
