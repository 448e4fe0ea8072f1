"""
Copy the code that the node pack shares with the package into `vendored/`, without what needs diffusers or safetensors.

The pack is installed from its folder alone, beside other people's versions of torch. It cannot depend on the package,
so it carries a copy of what it needs. Run this file after a change of a source:

    $ python comfyui_landscape_video/vendor.py

A test fails if a copy is stale. Comments and docstrings are copied unchanged; only the definitions named here, and the
imports that nothing uses any more, are left out.
"""

import argparse
import ast
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path


ROOT = Path(__file__).resolve().parents[1]
TARGET = Path(__file__).resolve().parent / "vendored"


@dataclass(frozen=True)
class Source:
    """
    A file to copy.

    Args:
        path: Path below the root of the repository.
        dropped: Definitions at the top level that are left out, with the comments above them.
        kept: If given, the only definitions at the top level that are copied, beside imports.
        docstring: Docstring of a copy with `kept`.
        replaced: Exact texts and their replacements; each must occur.
    """

    path: str
    dropped: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    docstring: str = ""
    replaced: dict[str, str] = field(default_factory=dict)


SOURCES = {
    "frame_interpolation.py": Source("pipeline_landscape_video/landscape_frame_interpolation.py"),
    "sofp.py": Source("pipeline_landscape_video/landscape_sofp.py"),
    "warping.py": Source("pipeline_landscape_video/landscape_warping.py"),
    "optical_flow.py": Source(
        "pipeline_landscape_video/landscape_optical_flow.py",
        # Files of RAFT weights are read with safetensors. The node loads torchvision's own weights.
        dropped=(
            "load_flow_estimator",
            "FlowEstimatorCache",
            "_load_raft",
            "_describe_differences",
            "_and_more",
            "_read_state_dict",
            "_PRINCETON_TO_TORCHVISION",
            "_to_torchvision_keys",
        ),
        replaced={
            "from diffusers.utils import logging\n": "",
            "import os\n": "import logging\nimport os\n",
            "logging.get_logger(__name__)": "logging.getLogger(__name__)",
        },
    ),
    "motion_attention.py": Source(
        "pipeline_landscape_video/landscape_motion_attention.py",
        kept=("SPARSE_CAUSAL_MODES", "sparse_causal_mask", "check_sparse_causal_mode"),
        docstring="Masks that define the modes of sparse-causal temporal attention (NADM Eqs. 6-8).",
    ),
    "scene_cuts.py": Source(
        "landscape_video/scene_cuts.py",
        replaced={"from pipeline_landscape_video.repeated_frames import": "from .repeated_frames import"},
    ),
    "repeated_frames.py": Source("pipeline_landscape_video/repeated_frames.py"),
    "timeline.py": Source(
        "pipeline_landscape_video/interpolation.py",
        kept=("doubled_times",),
        docstring="Times of interpolated frames.",
    ),
    "windows.py": Source(
        "pipeline_landscape_video/landscape_windows.py",
        kept=("CONTEXT_SCHEDULES", "CONTEXT_WEIGHTS", "WindowPlan"),
        docstring="Plan overlapping windows along the frames of a clip (Consistency tuning Eq. 18).",
    ),
}


def vendored_text(source: Source) -> str:
    """
    Return the text of a copy.

    Raises:
        ValueError: The source lacks a text or definition that `source` names.
    """
    text = (ROOT / source.path).read_text(encoding="utf-8")
    for old, new in source.replaced.items():
        if old not in text:
            raise ValueError(f"{source.path} must contain {old!r}; correct `SOURCES` in vendor.py.")
        text = text.replace(old, new)
    missing = {*source.dropped, *source.kept} - {defined_name(node) for node in ast.parse(text).body}
    if missing:
        raise ValueError(f"{source.path} must define {', '.join(sorted(missing))}; correct `SOURCES` in vendor.py.")
    code = drop_definitions(text, source)
    if source.docstring:
        code = f'"""{source.docstring}"""\n{code}'
    code = run_ruff(code, "check", "--select=F401,I001", "--fix-only")  # unused and unsorted imports
    code = run_ruff(code, "format")
    return f"# Copied from {source.path} by vendor.py. Change the source instead.\n{code}"


def drop_definitions(text: str, source: Source) -> str:
    """Remove what is not copied from a file, with the comments above."""
    lines = text.splitlines()
    for node in reversed(ast.parse(text).body):
        name = defined_name(node)
        is_other = source.kept and name not in source.kept and not isinstance(node, ast.Import | ast.ImportFrom)
        if name in source.dropped or is_other:
            start = first_line(node) - 1
            while start and lines[start - 1][:1] in ("", "#"):
                start -= 1
            del lines[start : node.end_lineno]
    return "\n".join(lines)


def run_ruff(code: str, *arguments: str) -> str:
    """Return code as a command of ruff leaves it."""
    command = [sys.executable, "-m", "ruff", *arguments, "--quiet", "--config", ROOT / "pyproject.toml", "-"]
    return subprocess.run(command, input=code, capture_output=True, encoding="utf-8", check=True).stdout


def first_line(node: ast.stmt) -> int:
    """Return the number of the line at which a statement begins, with its decorators."""
    return min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", ()))])


def defined_name(node: ast.stmt) -> str | None:
    """Return the name that a statement defines, if it is a function, a class or an assignment."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return node.name
    return node.targets[0].id if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) else None


def main() -> None:
    argparse.ArgumentParser(description=__doc__.strip().splitlines()[0]).parse_args()
    for name, source in SOURCES.items():
        (TARGET / name).write_text(vendored_text(source), encoding="utf-8")


if __name__ == "__main__":
    main()
