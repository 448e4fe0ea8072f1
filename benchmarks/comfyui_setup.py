"""Share among the checks of the node pack a base folder for ComfyUI, the command line, and the page of results."""

import argparse
import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

from comfyui_server import ComfyUI
from landscape_video.files import write_text
from motion_adapter.markdown import markdown_table


ROOT = Path(__file__).resolve().parents[1]
PACK = "comfyui_landscape_video"

Rows = list[tuple[str, str, bool]]  # what was checked, what was found, whether that is right


def parse_arguments(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Add the arguments that all checks have, and parse them."""
    parser.add_argument("comfyui", type=Path, help="checkout of ComfyUI; it is not changed")
    parser.add_argument("animatediff_evolved", type=Path, help="checkout of ComfyUI-AnimateDiff-Evolved")
    parser.add_argument(
        "--python", type=Path, default=Path(sys.executable), help="Python that runs ComfyUI (default: this one)"
    )
    parser.add_argument("--output", type=Path, help="Markdown file for the result (default: print only)")
    return parser.parse_args()


def install_packs(base: Path, animatediff_evolved: Path) -> None:
    """Install the node packs and the probes into an empty base folder of ComfyUI."""
    custom_nodes = base / "custom_nodes"
    shutil.copytree(ROOT / PACK, custom_nodes / PACK, ignore=shutil.ignore_patterns("__pycache__", "vendor.py"))
    ignore = shutil.ignore_patterns(".git", "__pycache__")
    shutil.copytree(animatediff_evolved, custom_nodes / "ComfyUI-AnimateDiff-Evolved", ignore=ignore)
    shutil.copy(Path(__file__).with_name("comfyui_probe.py"), custom_nodes)
    for name in ("input", "output", "models"):
        (base / name).mkdir()


def describe(python: Path, server: ComfyUI, animatediff_evolved: Path) -> list[str]:
    """Return what ran, with versions, as lines of Markdown."""
    names = ["torch", "torchvision", "numpy", "opencv-python", "einops", "av", "diffusers", "landscape-video"]
    code = (
        "import importlib.metadata as m, json, sys\n"
        "found = {}\n"
        "for name in sys.argv[1:]:\n"
        "    try: found[name] = m.version(name)\n"
        "    except m.PackageNotFoundError: found[name] = 'not installed'\n"
        "print(json.dumps(found))"
    )
    result = subprocess.run([python, "-c", code, *names], capture_output=True, text=True, check=True)
    versions = {"ComfyUI": server.system["comfyui_version"]}
    project = tomllib.loads((animatediff_evolved / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    versions["ComfyUI-AnimateDiff-Evolved"] = project["version"]
    versions |= json.loads(result.stdout)
    return [f"* {name} {version}" for name, version in versions.items()]


def print_rows(rows: Iterable[tuple[str, str, bool]]) -> Rows:
    """Print rows as they come, and return them."""
    seen: Rows = []
    for row in rows:
        seen.append(row)
        print("ok  " if row[2] else "FAIL", row[0], "-", row[1], flush=True)
    return seen


def finish(title: str, script: str, versions: list[str], rows: Rows, output: Path | None) -> None:
    """Write the page of results, and exit with 1 if a check failed."""
    lines = [f"# {title}", "", f"Made by `{script}` on the CPU.", "", *versions, ""]
    table = [(name, text, "yes" if right else "**no**") for name, text, right in rows]
    lines.append(markdown_table(["check", "found", "right"], table))
    if output:
        write_text(output, "\n".join(lines) + "\n")
    sys.exit(not all(right for *_, right in rows))
