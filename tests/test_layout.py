"""The tree keeps its order: imports run downward, files and functions stay short, tests mirror what they test."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[1]
CODE = (
    "pipeline_landscape_video",
    "motion_adapter",
    "landscape_video",
    "comfyui_landscape_video",
    "training",
    "benchmarks",
    "examples",
)

# From the lowest layer to the highest. A module may import from its own layer and from lower ones.
LAYERS = (
    "pipeline_landscape_video",
    "motion_adapter",
    "landscape_video.files",
    "landscape_video.scene_cuts",
    "landscape_video.generation",
    "landscape_video.evaluation",
    "landscape_video.training.settings",
    "landscape_video.training.data",
    "landscape_video.training.preparation",
    "landscape_video.training.objectives",
    "landscape_video.training.run",
    "landscape_video.web",
    "landscape_video.cli",
    "landscape_video",
    "comfyui_landscape_video",
    "shanshui.renderer",
    "shanshui.stages",
    "shanshui.measuring",
    "shanshui",
    "training",
    "benchmarks",
    "examples",
)
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_ENTRY_LINES = 130  # a pipeline's `__call__` and a straight-line `main`


def module_of(file: Path) -> str:
    """Dotted name of a file, as it is imported: `shanshui.*` for the files in training/shanshui."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    if parts[:2] == ("training", "shanshui"):
        parts = parts[1:]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def source_files() -> list[Path]:
    return sorted(file for folder in CODE for file in (ROOT / folder).rglob("*.py"))


@cache
def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


FILES = {module_of(file): file for file in source_files()}


def imports_of(module: str) -> set[str]:
    """Modules of ours that `module` imports, anywhere in its file. Imports for type checkers only do not count."""
    file = FILES[module]
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    tree = tree_of(file)
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *filter(None, [node.module])])
            found |= {name if (name := f"{base}.{alias.name}") in FILES else base for alias in node.names}
    # Scripts import their siblings by plain name.
    siblings = {f"{package}.{name}" for name in found} | found
    return {name for name in siblings if name in FILES and name != module}


def layer_of(module: str) -> int:
    """Position of the most specific layer that holds `module`."""
    holding = [layer for layer in LAYERS if module == layer or module.startswith(f"{layer}.")]
    assert holding, f"{module} belongs to no layer."
    return LAYERS.index(max(holding, key=len))


@pytest.mark.parametrize("module", FILES)
def test_imports_run_downward(module):
    upward = {name for name in imports_of(module) if layer_of(name) > layer_of(module)}
    assert not upward, f"{module} imports {', '.join(sorted(upward))} from a higher layer."


def test_no_module_imports_itself_through_others():
    finished, path = set(), []

    def visit(module: str) -> None:
        assert module not in path, "circle: " + " -> ".join([*path[path.index(module) :], module])
        if module in finished:
            return
        path.append(module)
        for name in sorted(imports_of(module)):
            visit(name)
        finished.add(path.pop())

    for module in FILES:
        visit(module)


def pipeline_leaves() -> list[str]:
    return [name for name in FILES if name.startswith("pipeline_landscape_video.landscape_")]


@pytest.mark.parametrize("module", pipeline_leaves())
def test_leaves_import_nothing_of_ours(module):
    # diffusers loads them from a flat folder, where leaves cannot find each other.
    assert imports_of(module) == set()


def test_pipelines_import_leaves_only():
    for module in ("pipeline_landscape_video.pipeline", "pipeline_landscape_video.pipeline_image_to_video"):
        assert imports_of(module) <= set(pipeline_leaves())


def test_the_node_pack_imports_the_package_in_one_place_only():
    # It is installed from its folder alone. These nodes exist only where the package is installed, too.
    for module in FILES:
        if module.startswith("comfyui_landscape_video") and module != "comfyui_landscape_video.nodes.generation":
            assert {name.split(".")[0] for name in imports_of(module)} <= {"comfyui_landscape_video"}, module


@pytest.mark.parametrize("file", [*source_files(), *sorted((ROOT / "tests").rglob("*.py"))], ids=str)
def test_no_file_edits_the_import_path(file):
    if file == Path(__file__):
        return
    text = file.read_text(encoding="utf-8")
    assert not re.search(r"\bsys\.path\b|noqa: *E402", text)


@pytest.mark.parametrize("file", source_files(), ids=str)
def test_files_and_functions_are_short(file):
    lines = len(file.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_FILE_LINES, f"{file.name} has {lines} lines."
    for node in ast.walk(tree_of(file)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        body = node.body[1:] if ast.get_docstring(node) is not None else node.body
        length = body[-1].end_lineno - body[0].lineno + 1 if body else 0
        is_entry = node.name == "main" or (node.name == "__call__" and file.name.startswith("pipeline"))
        limit = MAX_ENTRY_LINES if is_entry else MAX_FUNCTION_LINES
        assert length <= limit, f"{file.name}: the body of {node.name} has {length} lines."


# Folders whose tests stand elsewhere than the same path below tests/.
TESTS_OF = {
    "pipeline_landscape_video": "pipeline",
    "motion_adapter": "adapter",
    "landscape_video": "",
    "landscape_video/cli": "cli",
    "landscape_video/generation": "generation",
    "landscape_video/web/space": "web",
    "examples/space": "web",
    "comfyui_landscape_video": "comfyui",
    "comfyui_landscape_video/nodes": "comfyui",
    "comfyui_landscape_video/vendored": "comfyui",
    "training": "training",
    "training/shanshui": "shanshui",
}


def folder_of_tests(folder: Path) -> Path:
    """Folder below tests/ for a source folder: its own path, without `landscape_video/` and `training/`."""
    path = folder.relative_to(ROOT).as_posix()
    path = TESTS_OF.get(path, path.removeprefix("landscape_video/").replace("training/shanshui", "shanshui"))
    return ROOT / "tests" / path


@pytest.mark.parametrize(
    "folder", sorted({file.parent for file in source_files() if len(file.read_text(encoding="utf-8")) > 500}), ids=str
)
def test_the_tests_of_a_folder_are_found_by_its_path(folder):
    tests = folder_of_tests(folder)
    assert any(tests.glob("test_*.py")), f"no tests of {folder.relative_to(ROOT)} in {tests.relative_to(ROOT)}"


def test_no_two_tests_share_a_file_name():
    # pytest imports test files by their name alone.
    names = [file.name for file in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(set(names)) == sorted(names)
