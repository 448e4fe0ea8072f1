"""Make the Markdown tables of the SOFP benchmark from its results file."""

from collections.abc import Callable

import numpy as np

from landscape_video.evaluation.report.page import NAMES
from motion_adapter.markdown import markdown_table


RAFT_NAMES = {"raft_linear": "RAFT linear", "raft_quadratic": "RAFT quadratic"}
RIVALS = ("sofp_linear", "farneback", "rife")
SPEEDS = ("even", "rising", "falling")
MARGIN = 0.15  # dB that quadratic may be below the best rival at even speed

RAFT_NOTE = (
    "This RAFT was trained on satellite images of clouds; a package index has no other trained one. It shows that "
    "real weights run, not what torchvision's weights reach."
)
NATURAL_NOTE = "Every second frame is held out. The camera is hand-held or in a moving car; there is sensor noise."


def markdown(results: dict) -> str:
    """Make all tables, and list where SOFP loses."""
    rendered = [record for record in results["clips"] if record["kind"] == "rendered"]
    natural = [record for record in results["clips"] if record["kind"] == "natural"]
    with_raft = [record for record in results["clips"] if "raft_linear" in record["scores"]]
    parts = [_introduction(results["settings"], rendered), summary(results)]
    parts += ["## Where another method is better than quadratic SOFP", promises(results["clips"])]
    if rendered:
        parts += ["## SSIM", _grouped(rendered, "speed", NAMES, "ssim", 4)]
        for speed in SPEEDS:
            records = [record for record in rendered if record["speed"] == speed]
            if records:
                parts += [f"## Motifs at {speed} speed", _grouped(records, "motif", NAMES)]
                parts += [f"## Cameras at {speed} speed", _grouped(records, "camera", NAMES)]
    if natural:
        parts += ["## Natural clips", NATURAL_NOTE, _grouped(natural, "motif", NAMES)]
        parts += ["SSIM:", _grouped(natural, "motif", NAMES, "ssim", 4)]
    if with_raft:
        parts += ["## With RAFT, on a part of the clips", RAFT_NOTE, _grouped(with_raft, "motif", NAMES | RAFT_NAMES)]
    return "\n\n".join(parts) + "\n"


def summary(results: dict) -> str:
    """Tabulate PSNR in dB: a row for each method, a column for each speed and each natural clip."""
    groups = {}
    for record in results["clips"]:
        groups.setdefault(record["speed"] or record["motif"], []).append(record)
    order = [speed for speed in SPEEDS if speed in groups] + sorted(set(groups) - set(SPEEDS))
    heads = [f"{group} ({len(groups[group])})" for group in order]
    rows = [[name, *(f"{_mean(groups[group], key):.2f}" for group in order)] for key, name in NAMES.items()]
    return markdown_table(["method (clips)", *heads], rows)


def promises(clips: list[dict]) -> str:
    """Say how far quadratic SOFP leads, and list every class (motif, camera and speed, or natural clip) where not."""

    def lead(records: list[dict], rivals: tuple[str, ...]) -> float:
        return _mean(records, "sofp_quadratic") - max(_mean(records, rival) for rival in rivals)

    def losses(records: list[dict], rivals: tuple[str, ...], margin: float) -> str:
        lost = []
        for record in records:
            difference = lead([record], rivals)
            if difference < -margin:
                best = max(rivals, key=lambda rival: record["scores"][rival]["psnr"])
                where = " ".join(filter(None, (record["motif"], record["camera"], record["speed"])))
                lost.append(f"{where} ({NAMES[best]}, {difference:.2f} dB)")
        return f"in {len(lost)} of {len(records)} classes" + "".join(f"\n  * {item}" for item in sorted(lost))

    lines = [f"* Below averaging {losses(clips, ('average',), 0)}"]
    natural = ("",)
    for where, speeds, margin in (
        ("Even speed", SPEEDS[:1], MARGIN),
        ("Changing speed", SPEEDS[1:], 0),
        ("Natural clips", natural, 0),
    ):
        records = [record for record in clips if record["speed"] in speeds]
        if records:
            lines.append(
                f"* {where}: {lead(records, RIVALS):+.2f} dB from the best of linear, Farneback and RIFE on average;\n"
                f"  more than {margin} dB below the best of the three {losses(records, RIVALS, margin)}"
            )
    return "\n".join(lines)


def _introduction(settings: dict, rendered: list[dict]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in settings["versions"].items())
    return (
        "# Interpolated frames compared with true ones\n\n"
        f"Mean PSNR over clips, in dB. There are {len(rendered)} rendered clips of {settings['size']} x "
        f"{settings['size']}. Methods receive {settings['num_frames']} frames, at {settings['frame_rate']} per second "
        "on average; the true half-time frames are held out. SOFP uses DIS flow unless stated otherwise, and "
        "Farneback's flow goes through the same warping. Motion is even, rising from rest (s^2), or falling to rest. "
        "Measured by `python benchmarks/sofp.py`, seed "
        f"{settings['seed']}; SOFP was tuned on other seeds. {settings['device']}; {versions}."
    )


def _mean(records: list[dict], method: str, metric: str = "psnr") -> float:
    return float(np.mean([record["scores"][method][metric] for record in records]))


def _grouped(records: list[dict], by: str, names: dict[str, str], metric: str = "psnr", digits: int = 2) -> str:
    order: Callable = SPEEDS.index if by == "speed" else str
    rows = []
    for group in sorted({record[by] for record in records}, key=order):
        members = [record for record in records if record[by] == group]
        rows.append([group, str(len(members)), *(f"{_mean(members, name, metric):.{digits}f}" for name in names)])
    return markdown_table([by, "clips", *names.values()], rows)
