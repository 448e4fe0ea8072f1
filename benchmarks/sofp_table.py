"""The Markdown table of the SOFP benchmark, made from its raw results alone."""

from collections.abc import Callable

import numpy as np


NAMES = {
    "repeat": "repeat",
    "average": "average",
    "farneback": "Farneback",
    "rife": "RIFE",
    "sofp_linear": "SOFP linear",
    "sofp_projection": "SOFP projection",
    "sofp_quadratic": "SOFP quadratic",
}
RAFT_NAMES = {"raft_linear": "RAFT linear", "raft_quadratic": "RAFT quadratic"}
RIVALS = ("sofp_linear", "farneback", "rife")
SPEEDS = ("even", "rising", "falling")
MARGIN = 0.15  # dB that quadratic may lie below the best rival at even speed


def markdown(results: dict) -> str:
    """All tables, with a line for each promise that is kept or broken."""
    rendered = [record for record in results["clips"] if record["kind"] == "rendered"]
    natural = [record for record in results["clips"] if record["kind"] == "natural"]
    parts = [_introduction(results["settings"], rendered)]
    if rendered:
        parts += [
            "## Speed",
            _grouped(rendered, "speed", NAMES),
            "## SSIM",
            _grouped(rendered, "speed", NAMES, "ssim", 4),
        ]
        for speed in SPEEDS:
            records = [record for record in rendered if record["speed"] == speed]
            if records:
                parts += [f"## Motifs at {speed} speed", _grouped(records, "motif", NAMES)]
                parts += [f"## Cameras at {speed} speed", _grouped(records, "camera", NAMES)]
        parts += ["## What was promised", _promises(rendered)]
    with_raft = [record for record in rendered if "raft_linear" in record["scores"]]
    if with_raft:
        parts += ["## With RAFT, on a part of the clips", RAFT_NOTE, _grouped(with_raft, "speed", NAMES | RAFT_NAMES)]
    if natural:
        parts += ["## Natural clips", NATURAL_NOTE, _grouped(natural, "motif", NAMES | RAFT_NAMES)]
        parts += ["SSIM:", _grouped(natural, "motif", NAMES | RAFT_NAMES, "ssim", 4)]
    return "\n\n".join(parts) + "\n"


RAFT_NOTE = (
    "This RAFT was trained on satellite images of clouds, the only trained one that a package index carries: it shows "
    "that real weights run, not what torchvision's weights reach."
)
NATURAL_NOTE = "Every second frame is held out; both clips are hand-held or from a moving car, with sensor noise."


def _introduction(settings: dict, rendered: list[dict]) -> str:
    return (
        "# Interpolated frames against true ones\n\n"
        f"PSNR in dB, means over clips. {len(rendered)} rendered clips of {settings['size']} x {settings['size']}, "
        f"{settings['num_frames']} frames given at {settings['frame_rate']} a second on average, the true half-time "
        "frames held out; SOFP and Farneback go through the same warping, SOFP on DIS flow if nothing else is said. "
        "Speeds: even; rising from rest (s^2); falling to rest. Made by `python benchmarks/sofp.py`; tuned on other "
        f"seeds. torch {settings['versions']['torch']}, OpenCV {settings['versions']['opencv']}."
    )


def _mean(records: list[dict], method: str, metric: str = "psnr") -> float:
    values = [record["scores"][method][metric] for record in records if method in record["scores"]]
    return float(np.mean(values)) if values else float("nan")


def _grouped(records: list[dict], by: str, names: dict[str, str], metric: str = "psnr", digits: int = 2) -> str:
    order: Callable = SPEEDS.index if by == "speed" else str
    groups = sorted({record[by] for record in records}, key=order)
    lines = ["| " + " | ".join([by, "clips", *names.values()]) + " |", "|---" * (len(names) + 2) + "|"]
    for group in groups:
        members = [record for record in records if record[by] == group]
        cells = [f"{_mean(members, method, metric):.{digits}f}" for method in names]
        lines.append("| " + " | ".join([group, str(len(members)), *cells]) + " |")
    return "\n".join(lines)


def _promises(rendered: list[dict]) -> str:
    def lead(records: list[dict], methods: tuple[str, ...]) -> float:
        return _mean(records, "sofp_quadratic") - max(_mean(records, method) for method in methods)

    changing = [record for record in rendered if record["speed"] != "even"]
    even = [record for record in rendered if record["speed"] == "even"]
    classes = {(r["motif"], r["camera"], r["speed"]): r for r in rendered}
    below_average = [key for key, record in classes.items() if lead([record], ("average",)) < 0]
    lines = [
        f"* Against averaging, quadratic wins in {len(classes) - len(below_average)} of {len(classes)} classes of "
        f"motif, camera and speed{_listed(below_average)}.",
    ]
    if even:
        lines.append(
            f"* At even speed it lies {lead(even, RIVALS):+.2f} dB from the best of linear, Farneback and RIFE."
        )
        lines.append(_losses(even, MARGIN, "At even speed", lead))
    if changing:
        lines.append(f"* Where speed changes it leads the best of the three by {lead(changing, RIVALS):+.2f} dB.")
        lines.append(_losses(changing, 0, "Where speed changes", lead))
    return "\n".join(lines)


def _losses(records: list[dict], margin: float, where: str, lead: Callable) -> str:
    lost = []
    for record in records:
        difference = lead([record], RIVALS)
        if difference < -margin:
            best = max(RIVALS, key=lambda method: record["scores"][method]["psnr"])
            lost.append((record["motif"], record["camera"], record["speed"], NAMES[best], f"{difference:.2f} dB"))
    return (
        f"* {where} it is more than {margin} dB below the best of the three in {len(lost)} of {len(records)} classes"
        f"{_listed(sorted(lost))}."
    )


def _listed(items: list[tuple]) -> str:
    return ": " + "; ".join(" / ".join(item) for item in items) if items else ""
