"""The results of `measure.py` as JSON, as Markdown for a model card, and as contact sheets."""

import json
import math
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from landscape_video.evaluation.metrics.intervals import Interval
from motion_adapter.markdown import markdown_table
from shanshui.measuring.measure_controls import SHORT, Control
from shanshui.measuring.scene_classifiers import HEADS, VALID_FROM


LANGUAGE_NAMES = {"en": "English", "zh": "Chinese"}
OF_RENDERED = 0.9  # the share of the rendered clips' figure that a generated one has to reach
CHINESE_FONTS = (
    "NotoSansCJK-Regular.ttc", "NotoSerifCJK-Regular.ttc", "SourceHanSansSC-Regular.otf", "wqy-microhei.ttc",
    "PingFang.ttc", "msyh.ttc", "simsun.ttc",
)  # fmt: skip
_SHARES = ("camera", "motifs, mean", "lake or river", "sun or moon", *HEADS)  # figures with a ratio to the rendered
_DIGITS = {"motion": 2, "flicker": 2, "CLIP-text": 1}


@dataclass(frozen=True)
class Bar:
    """What a figure has to reach; `passed` is None where the measurer itself is not good enough to say."""

    figure: str
    wanted: str
    value: float
    passed: bool | None

    @property
    def verdict(self) -> str:
        return {True: "yes", False: "**no**", None: "not judged"}[self.passed]


@dataclass(frozen=True)
class LanguageResults:
    """All figures of the prompts of one language; `cameras` counts, by the camera asked for, those seen."""

    generated: dict[str, Interval]
    rendered: dict[str, Interval]
    still: dict[str, Interval]
    cameras: dict[str, dict[str, int]]
    controls: list[Control]


@dataclass(frozen=True)
class MeasurerResults:
    """How right the measurers are on held-out rendered clips, and on reconstructions of them by the autoencoder."""

    held_out: dict[str, Interval]
    reconstructed: dict[str, Interval]
    ssim: Interval
    psnr: Interval
    flicker: Interval

    @property
    def valid(self) -> tuple[str, ...]:
        """The answers that count."""
        return tuple(name for name, figure in self.held_out.items() if figure.value >= VALID_FROM)


@dataclass(frozen=True)
class Results:
    """Everything that one run of `measure.py` found."""

    settings: dict[str, Any]
    measurers: MeasurerResults
    languages: dict[str, LanguageResults]

    def bars(self, language: str) -> dict[str, Bar]:
        """The bars that the figures of a language have to reach, by the name of the figure."""
        results, valid = self.languages[language], self.measurers.valid
        bars = {}
        for name in ("palette", "camera", "motifs, mean"):
            if name in results.generated:
                limit = OF_RENDERED * results.rendered[name].value
                judged = name == "motifs, mean" or name in valid
                value = results.generated[name].value
                wanted = f">= {limit:.2f} ({OF_RENDERED:g} of rendered)"
                bars[name] = Bar(name, wanted, value, value >= limit if judged else None)
        value = results.generated["motion, times rendered"].value
        bars["motion, times rendered"] = Bar("motion, times rendered", "0.5 to 2", value, 0.5 <= value <= 2)
        value = results.generated["flicker, times rendered"].value
        bars["flicker, times rendered"] = Bar("flicker, times rendered", "<= 2", value, value <= 2)
        return bars

    @property
    def autoencoder_bar(self) -> Bar:
        value = self.measurers.ssim.value
        return Bar("SSIM of the autoencoder", ">= 0.92", value, value >= 0.92)


def write_json(results: Results, path: Path) -> None:
    """Every number, nothing rounded; what is not finite becomes null."""
    languages = {
        language: {**asdict(found), "bars": [asdict(bar) for bar in results.bars(language).values()]}
        for language, found in results.languages.items()
    }
    measurers = asdict(results.measurers) | {
        "valid": results.measurers.valid,
        "bars": [asdict(results.autoencoder_bar)],
    }
    content = without_nan({"settings": results.settings, "measurers": measurers, "languages": languages})
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_nan(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(one) for one in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return bool(value) if isinstance(value, np.bool_) else value


def markdown(results: Results) -> str:
    """Tables ready for a model card."""
    settings = results.settings
    lines = [
        f"Measured by `training/shanshui/measure.py` on {settings['prompts']} held-out prompts a language (scenes of"
        f" seed {settings['seed']}), {settings['steps']} steps, guidance {settings['guidance_scale']:g},"
        f" eta {settings['eta']:g}, {settings['num_frames']} frames of {settings['size']} x {settings['size']},"
        f" {settings['dtype']}, no interpolation; in brackets 95 % bootstrap intervals. {versions_text(settings)}",
        "",
        *_summary(results),
        "",
        "*Rendered* is the same measurer on the rendered clips of the same scenes, *still* on the first frame of each"
        " generated clip, repeated. A motif's figure is the mean of \"there when asked for\" and \"not there when not"
        f' asked for": guessing reaches 0.5. Answers marked (invalid) are right on less than {VALID_FROM:.0%} of'
        " held-out rendered clips and do not count. Motion is the mean flow in pixels a frame (the median clip's),"
        " flicker the mean difference between frames that flow does not explain, in levels of 255.",
    ]  # fmt: skip
    for language, found in results.languages.items():
        lines += ["", f"### {LANGUAGE_NAMES[language]} prompts", "", _figure_table(results, language, found)]
        rows = [(asked, *map(str, seen.values())) for asked, seen in found.cameras.items()]
        lines += ["", markdown_table(("Camera asked for, and seen", *found.cameras), rows)]
        if found.controls:
            lines += ["", f"Arguments, on clips of {SHORT} frames where nothing else is said:", ""]
            lines += [markdown_table(("Control", "Figure", "Wanted", "Met"), map(control_row, found.controls))]
    lines += ["", "### Autoencoder and measurers, on held-out rendered clips", ""]
    bar, measurers = results.autoencoder_bar, results.measurers
    rows = [
        ("SSIM", measurers.ssim.text(3), bar.wanted, bar.verdict),
        ("PSNR, dB", measurers.psnr.text(1), "", ""),
        ("flicker, times rendered", measurers.flicker.text(), "", ""),
    ]
    lines += [markdown_table(("Autoencoder", "Figure", "Wanted", "Met"), rows), ""]
    lines += [markdown_table(("Measurer", "Rendered", "Reconstructed by the autoencoder"), _measurer_rows(measurers))]
    return "\n".join(lines) + "\n"


def _summary(results: Results) -> list[str]:
    """A line for every bar: met or not."""
    verdicts = {True: "met", False: "**not met**", None: "not judged, as the measurer is not valid"}
    bars = [("", results.autoencoder_bar)]
    controls = []
    for language, found in results.languages.items():
        bars += [(f", {LANGUAGE_NAMES[language]}", bar) for bar in results.bars(language).values()]
        controls += found.controls
    lines = [f"- {bar.figure}{of}: {bar.value:.3f}, wanted {bar.wanted}: {verdicts[bar.passed]}" for of, bar in bars]
    return lines + [
        f"- {control.name}: {control.figure.value:.3f}, wanted {control.wanted}: {verdicts[control.passed]}"
        for control in controls
    ]


def versions_text(settings: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in settings["versions"].items())
    return f"{settings['device']}; {versions}."


def _figure_table(results: Results, language: str, found: LanguageResults) -> str:
    bars = results.bars(language)
    rows = []
    for name, figure in found.generated.items():
        digits = _DIGITS.get(name, 2)
        beside = [part[name].text(digits) if name in part else "" for part in (found.rendered, found.still)]
        bar = bars.get(name)
        invalid = name in results.measurers.held_out and name not in results.measurers.valid
        of_rendered = figure.value / (found.rendered[name].value or math.nan) if name in _SHARES else math.nan
        rows.append(
            (
                name + (" (invalid)" if invalid else ""),
                figure.text(digits),
                *beside,
                "" if math.isnan(of_rendered) else f"{of_rendered:.2f}",
                bar.wanted if bar else "",
                bar.verdict if bar else "",
            )
        )
    return markdown_table(("Figure", "Generated", "Rendered", "Still", "Of rendered", "Wanted", "Met"), rows)


def control_row(control: Control) -> tuple[str, ...]:
    return (
        control.name,
        control.figure.text(),
        control.wanted,
        {True: "yes", False: "**no**", None: ""}[control.passed],
    )


def _measurer_rows(measurers: MeasurerResults) -> list[tuple[str, ...]]:
    return [
        (
            name + ("" if name in measurers.valid else " (invalid)"),
            figure.text(),
            measurers.reconstructed[name].text() if name in measurers.reconstructed else "",
        )
        for name, figure in measurers.held_out.items()
    ]


def write_contact_sheets(
    folder: Path,
    language: str,
    prompts: Sequence[str],
    rendered: Sequence[np.ndarray],
    generated: Sequence[np.ndarray],
    rows: int = 10,
    pages: int = 4,
) -> None:
    """PNG pages `sheet_LANGUAGE_1.png`, ...: four frames of each rendered clip, four of the generated one, the prompt.

    Chinese is drawn where the system has a font for it; the prompts also stand in `prompts_LANGUAGE.txt`, numbered.
    """
    folder.mkdir(parents=True, exist_ok=True)
    numbered = [f"{number + 1}. {prompt}" for number, prompt in enumerate(prompts)]
    (folder / f"prompts_{language}.txt").write_text("\n".join(numbered) + "\n", encoding="utf-8")
    font = caption_font(language)
    for page, start in enumerate(range(0, min(len(prompts), rows * pages), rows)):
        strips = [
            contact_strip(numbered[i] if font else f"{i + 1}.", rendered[i], generated[i], font)
            for i in range(start, min(start + rows, len(prompts)))
        ]
        Image.fromarray(np.concatenate(strips)).save(folder / f"sheet_{language}_{page + 1}.png")


def caption_font(language: str, size: int = 13) -> ImageFont.FreeTypeFont | None:
    """A font that has the language's letters, or None."""
    if language == "en":
        return ImageFont.load_default(size)
    for name in CHINESE_FONTS:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return None


def contact_strip(
    text: str, rendered: np.ndarray, generated: np.ndarray, font: ImageFont.FreeTypeFont | None, gap: int = 16
) -> np.ndarray:
    """(height, width, 3) uint8: frames of both clips in a row, and the text below."""
    halves = [np.concatenate(list(clip[np.linspace(0, len(clip) - 1, 4).round().astype(int)]), axis=1)
              for clip in (rendered, generated)]  # fmt: skip
    between = np.full((halves[0].shape[0], gap, 3), 255, np.uint8)
    pictures = np.concatenate([halves[0], between, halves[1]], axis=1)
    font = font or ImageFont.load_default(13)
    letters = max(1, int(pictures.shape[1] / (font.size * (1.0 if text and max(text) > "\u2e7f" else 0.5))))
    lines = textwrap.wrap(text, letters)
    label = Image.new("RGB", (pictures.shape[1], 10 + 18 * max(len(lines), 1)), "white")
    draw = ImageDraw.Draw(label)
    for number, line in enumerate(lines):
        draw.text((4, 2 + 18 * number), line, "black", font)
    return np.concatenate([pictures, np.asarray(label)])
