"""Write the results of `measure.py` as JSON, and as Markdown for a model card."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from landscape_video.evaluation.metrics.intervals import Interval
from landscape_video.files import write_json
from motion_adapter.markdown import markdown_table
from shanshui.measuring.argument_checks import SHORT, ArgumentCheck
from shanshui.measuring.classifier_training import ATTRIBUTES
from shanshui.measuring.predictions import VALID_FROM, HeldOutResults


LANGUAGE_NAMES = {"en": "English", "zh": "Chinese"}
OF_RENDERED = 0.9  # share of the rendered clips' value that a generated one must reach
LEAST_SSIM = 0.92  # of the autoencoder
RELATIVE = ("camera", "motifs, mean", "lake or river", "sun or moon", *ATTRIBUTES)  # shown relative to the rendered
MOTION, FLICKER = "motion, relative to rendered", "flicker, relative to rendered"
CHECK_HEADER = ("Check", "Value", "Wanted", "Met")


@dataclass(frozen=True)
class LanguageResults:
    """Results for the prompts of one language.

    Args:
        generated, rendered, still: Values by name, for generated and rendered clips, and for still first frames.
        cameras: How often each camera was seen, by the camera that was asked for.
        checks: Argument checks.
    """

    generated: dict[str, Interval]
    rendered: dict[str, Interval]
    still: dict[str, Interval]
    cameras: dict[str, dict[str, int]]
    checks: list[ArgumentCheck]


@dataclass(frozen=True)
class Results:
    """Everything that one run of `measure.py` measured."""

    settings: dict[str, Any]
    held_out: HeldOutResults
    languages: dict[str, LanguageResults]

    def targets(self, language: str) -> dict[str, ArgumentCheck]:
        """What the values of a language have to reach, by name. A measurement that is not valid judges nothing."""
        results = self.languages[language]
        targets = {}
        for name in ("palette", "camera", "motifs, mean"):
            if name in results.generated:
                limit, figure = OF_RENDERED * results.rendered[name].value, results.generated[name]
                is_judged = name == "motifs, mean" or name in self.held_out.valid
                wanted = f">= {limit:.2f} ({OF_RENDERED:g} of rendered)"
                targets[name] = ArgumentCheck(name, figure, wanted, figure.value >= limit if is_judged else None)
        motion, flicker = results.generated[MOTION], results.generated[FLICKER]
        targets[MOTION] = ArgumentCheck(MOTION, motion, "0.5 to 2", 0.5 <= motion.value <= 2)
        targets[FLICKER] = ArgumentCheck(FLICKER, flicker, "<= 2", flicker.value <= 2)
        return targets

    @property
    def autoencoder_target(self) -> ArgumentCheck:
        """What the autoencoder has to reach."""
        ssim = self.held_out.ssim
        return ArgumentCheck("SSIM of the autoencoder", ssim, f">= {LEAST_SSIM}", ssim.value >= LEAST_SSIM)


def write_results(results: Results, path: Path) -> None:
    """Write every number as JSON, nothing rounded. What is not finite becomes null."""
    measurers = asdict(results.held_out) | {
        "valid": results.held_out.valid,
        "bars": [_bar(results.autoencoder_target)],
    }
    languages = {}
    for language, found in results.languages.items():
        entry = asdict(found)
        entry["controls"] = entry.pop("checks")
        languages[language] = entry | {"bars": list(map(_bar, results.targets(language).values()))}
    write_json(path, without_nan({"settings": results.settings, "measurers": measurers, "languages": languages}))


def _bar(target: ArgumentCheck) -> dict[str, Any]:
    return {
        "figure": target.name,
        "wanted": target.wanted,
        "value": target.figure.value,
        "passed": target.passed,
    }


def without_nan(value: Any) -> Any:
    """Convert to what JSON can hold; numbers that are not finite become None."""
    if isinstance(value, dict):
        return {key: without_nan(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(one) for one in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return bool(value) if isinstance(value, np.bool_) else value


def markdown(results: Results) -> str:
    """Format the tables for a model card."""
    settings, held_out = results.settings, results.held_out
    targets, checks = [("", results.autoencoder_target)], []
    for language, found in results.languages.items():
        targets += [(f", {LANGUAGE_NAMES[language]}", target) for target in results.targets(language).values()]
        checks += [("", check) for check in found.checks]
    parts = [
        f"Measured by `training/shanshui/measure.py` on {settings['prompts']} held-out prompts per language (scenes "
        f"of seed {settings['seed']}): {settings['steps']} steps, guidance {settings['guidance_scale']:g}, "
        f"eta {settings['eta']:g}, {settings['num_frames']} frames of {settings['size']} x {settings['size']}, "
        f"{settings['dtype']}, no interpolation. 95 % bootstrap intervals in brackets. {versions_text(settings)}",
        "\n".join(_target_line(check, where) for where, check in [*targets, *checks]),
        "*Rendered* is the same measurement on the rendered clips of the same scenes, *still* on the first frame of "
        "each generated clip, repeated. The value of a motif is the mean of two rates: it is there where asked for, "
        "and not there where not. Guessing reaches 0.5. Values marked (invalid) do not count: on held-out rendered "
        f"clips, they are right less than {VALID_FROM:.0%} of the time. Motion is the mean flow in pixels per frame "
        "(of the median clip). Flicker is the mean difference between frames that flow does not explain, in gray "
        "levels out of 255.",
    ]
    for language, found in results.languages.items():
        parts += [f"### {LANGUAGE_NAMES[language]} prompts", _language_table(results, language, found)]
        rows = [(asked, *seen.values()) for asked, seen in found.cameras.items()]
        parts.append(markdown_table(("Camera asked for, and seen", *found.cameras), rows))
        if found.checks:
            parts.append(f"Checks of the arguments, on clips of {SHORT} frames unless a check says otherwise:")
            parts.append(markdown_table(CHECK_HEADER, map(check_row, found.checks)))
    parts += ["### Autoencoder and measurements, on held-out rendered clips"]
    rows = [
        ("SSIM", held_out.ssim.text(3), results.autoencoder_target.wanted, results.autoencoder_target.verdict),
        ("PSNR, dB", held_out.psnr.text(1), "", ""),
        ("flicker, relative to rendered", held_out.flicker.text(), "", ""),
    ]
    parts.append(markdown_table(("Autoencoder", *CHECK_HEADER[1:]), rows))
    rows = []
    for name, figure in held_out.held_out.items():
        rebuilt = held_out.reconstructed[name].text() if name in held_out.reconstructed else ""
        rows.append((name + ("" if name in held_out.valid else " (invalid)"), figure.text(), rebuilt))
    parts.append(markdown_table(("Measurement", "Rendered", "Reconstructed by the autoencoder"), rows))
    return "\n\n".join(parts) + "\n"


def versions_text(settings: dict[str, Any]) -> str:
    """Device and versions in one sentence."""
    versions = ", ".join(f"{name} {version}" for name, version in settings["versions"].items())
    return f"{settings['device']}; {versions}."


def check_row(check: ArgumentCheck) -> tuple[str, ...]:
    """A row of a table of checks, see `CHECK_HEADER`."""
    return check.name, check.figure.text(), check.wanted, check.verdict


def _target_line(check: ArgumentCheck, where: str) -> str:
    verdict = {True: "met", False: "**not met**", None: "not judged, because the measurement is not valid"}
    return f"- {check.name}{where}: {check.figure.value:.3f}, wanted {check.wanted}: {verdict[check.passed]}"


def _language_table(results: Results, language: str, found: LanguageResults) -> str:
    targets, held_out = results.targets(language), results.held_out
    rows = []
    for name, figure in found.generated.items():
        digits = 1 if name == "CLIP-text" else 2
        beside = [part[name].text(digits) if name in part else "" for part in (found.rendered, found.still)]
        is_invalid = name in held_out.held_out and name not in held_out.valid
        of_rendered = figure.value / (found.rendered[name].value or math.nan) if name in RELATIVE else math.nan
        relative = "" if math.isnan(of_rendered) else f"{of_rendered:.2f}"
        target = targets.get(name)
        met = (target.wanted, target.verdict) if target else ("", "")
        rows.append((name + " (invalid)" * is_invalid, figure.text(digits), *beside, relative, *met))
    return markdown_table(("Value", "Generated", "Rendered", "Still", "Of rendered", "Wanted", "Met"), rows)
