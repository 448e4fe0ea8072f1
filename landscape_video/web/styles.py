"""The words that choose a palette and a camera move, and how often the model follows them."""

import re
from pathlib import Path


PALETTES = ("ink", "blue_green", "autumn", "snow", "dawn")
CAMERAS = ("still", "left", "right", "closer", "away")

# Phrases of the training captions, by kind, value and language.
PHRASES = {
    "palette": {
        "ink": {"en": "in ink wash", "zh": "水墨晕染"},
        "blue_green": {"en": "in blue-green tones", "zh": "青绿设色"},
        "autumn": {"en": "in autumn gold", "zh": "秋色满山"},
        "snow": {"en": "under deep snow", "zh": "白雪满山"},
        "dawn": {"en": "at dawn in rose tones", "zh": "朝霞满天"},
    },
    "camera": {
        "still": {"en": "a still camera", "zh": "镜头静止"},
        "left": {"en": "the camera pans left", "zh": "镜头左移"},
        "right": {"en": "the camera pans right", "zh": "镜头右移"},
        "closer": {"en": "the camera moves closer", "zh": "镜头推近"},
        "away": {"en": "the camera pulls back", "zh": "镜头拉远"},
    },
}

_CHINESE = re.compile(r"[\u3400-\u9fff]")
_SECTIONS = {"en": "### English prompts", "zh": "### Chinese prompts"}


def language_of_prompt(prompt: str, default: str) -> str:
    """The language that a prompt is written in; `default` for an empty one."""
    if not prompt.strip():
        return default
    return "zh" if _CHINESE.search(prompt) else "en"


def write_phrase(prompt: str, kind: str, value: str, language: str) -> str:
    """Put the phrase of a palette or camera move into a prompt, in place of another one of the kind.

    Args:
        prompt: The prompt so far.
        kind: "palette" or "camera".
        value: One of `PALETTES` or `CAMERAS`.
        language: "en" or "zh" for an empty prompt; a prompt with text keeps its own language.
    """
    language = language_of_prompt(prompt, language)
    comma = "，" if language == "zh" else ", "
    others = {phrase for phrases in PHRASES[kind].values() for phrase in phrases.values()}
    parts = [part.strip() for part in re.split(r"[,，]", prompt)]
    return comma.join([*(part for part in parts if part and part not in others), PHRASES[kind][value][language]])


def camera_success(model_folder: Path | None, language: str) -> dict[str, float]:
    """How often a model moves the camera as asked, as its card has it measured; empty without such a table.

    Args:
        model_folder: Folder of the model, whose README.md has a table "Camera asked for, and seen" for each language.
        language: "en" or "zh", the language of the prompts.
    """
    card = None if model_folder is None else model_folder / "README.md"
    if card is None or not card.is_file():
        return {}
    section = card.read_text(encoding="utf-8").partition(_SECTIONS[language])[2]
    table = section.partition("| Camera asked for, and seen |")[2].partition("\n\n")[0]
    lines = table.splitlines()[2:]  # below the header
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines]
    seen = {row[0]: [int(count) for count in row[1:]] for row in rows if row[0] in CAMERAS}
    return {asked: counts[CAMERAS.index(asked)] / sum(counts) for asked, counts in seen.items()}
