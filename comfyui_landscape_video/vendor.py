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
import re
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
        dropped: Definitions at the top level that are left out, with the comments right above them.
        kept: The only statements at the top level that are copied beside imports, if given: names of definitions.
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
    text = keep_definitions(text, source) if source.kept else drop_unused_imports(drop_definitions(text, source))
    return f"# Copied from {source.path} by vendor.py. Change the source instead.\n{text}"


def drop_definitions(text: str, source: Source) -> str:
    """Remove the dropped definitions of a file, with the comments right above them."""
    lines, missing = text.splitlines(), set(source.dropped)
    for node in reversed(ast.parse(text).body):
        name = defined_name(node)
        if name not in source.dropped:
            continue
        missing.discard(name)
        start = first_line(node) - 1
        while lines[start - 1].startswith("#"):
            start -= 1
        del lines[start : node.end_lineno]
    if missing:
        raise ValueError(f"{source.path} must define {', '.join(sorted(missing))}; correct `SOURCES` in vendor.py.")
    return re.sub(r"\n{4,}", "\n\n\n", "\n".join(lines)).rstrip() + "\n"


def keep_definitions(text: str, source: Source) -> str:
    """Keep the imports and the kept definitions of a file."""
    tree = ast.parse(text)
    lines, kept = text.splitlines(), {}
    for node in tree.body:
        kept[defined_name(node)] = "\n".join(lines[first_line(node) - 1 : node.end_lineno])
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    import_lines = lines[imports[0].lineno - 1 : imports[-1].end_lineno]
    missing = sorted(set(source.kept) - kept.keys())
    if missing:
        raise ValueError(f"{source.path} must define {', '.join(missing)}; correct `SOURCES` in vendor.py.")
    code = "\n\n\n".join(["\n".join(import_lines), *(kept[name] for name in source.kept)])
    code = re.sub(r"\n{4,}", "\n\n\n", drop_unused_imports(code).lstrip())
    return f'"""{source.docstring}"""\n\n{code}'


def first_line(node: ast.stmt) -> int:
    """Return the number of the line at which a statement begins, with its decorators."""
    return min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", ()))])


def defined_name(node: ast.stmt) -> str | None:
    """Return the name that a statement defines, if it is a function, a class or an assignment."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return node.name
    return node.targets[0].id if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) else None


def drop_unused_imports(text: str) -> str:
    """Remove the imported names that a file does not use, from imports of one line at the top level."""
    tree, lines = ast.parse(text), text.splitlines()
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    for node in reversed(tree.body):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        kept = [alias for alias in node.names if (alias.asname or alias.name.split(".")[0]) in used]
        if not kept:
            del lines[node.lineno - 1 : node.end_lineno]
        elif len(kept) < len(node.names):
            node.names = kept
            lines[node.lineno - 1 : node.end_lineno] = [ast.unparse(node)]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only report stale copies, with exit status 1")
    args = parser.parse_args()
    texts = {TARGET / name: vendored_text(source) for name, source in SOURCES.items()}
    stale = [file for file, text in texts.items() if not file.is_file() or file.read_text(encoding="utf-8") != text]
    for file in stale:
        print(f"{file.relative_to(ROOT)} {'is stale' if args.check else 'written'}")
        if not args.check:
            file.write_text(texts[file], encoding="utf-8")
    sys.exit(args.check and bool(stale))


if __name__ == "__main__":
    main()
