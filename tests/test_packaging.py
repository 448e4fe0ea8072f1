"""setup.py, the README and the CI script agree with each other and with the code."""

import ast
import importlib
import importlib.metadata
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement


ROOT = Path(__file__).parents[1]
# Each importable package and its folder in the repository.
FOLDERS = {
    "pipeline_landscape_video": "pipeline_landscape_video",
    "motion_adapter": "motion_adapter",
    "landscape_video": "landscape_video",
    "shanshui": "training/shanshui",
}
PACKAGES = tuple(FOLDERS)

# Required at run time, but not imported by our code.
USED_BY_OTHERS = {
    "accelerate": "loading with little memory, and --offload",
    "jinja2": "huggingface_hub fills the template of a model card with it",
    "peft": "loading LoRA weights raises without it",
}
# Imported inside functions, which name the extra if it is missing.
IN_EXTRAS = {"scikit_image", "imagehash", "tokenizers", "ray", "gradio"}
# Optional packages of training, which names them if they are missing.
ASKED_FOR_BY_NAME = {"bitsandbytes", "deepspeed", "trackio"}


@pytest.fixture(scope="module")
def setup_arguments() -> dict:
    """Read the keyword arguments of `setup(...)` without running it."""
    tree = ast.parse((ROOT / "setup.py").read_text())
    call = next(
        node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "setup"
    )
    literals = {}
    for keyword in call.keywords:
        try:
            literals[keyword.arg] = ast.literal_eval(keyword.value)
        except ValueError:  # the README's text
            continue
    return literals


def name_of(requirement: str) -> str:
    return re.match(r"[\w.-]+", requirement)[0].lower().replace("-", "_")


def imported_modules(package: str) -> set[str]:
    modules = set()
    for file in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                modules |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                modules.add(node.module.split(".")[0])
    return modules


def test_every_package_of_the_tree_is_listed(setup_arguments):
    # ComfyUI imports the node pack from its own folder, so it is not in the wheel.
    top_level = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"comfyui_landscape_video"}
    assert top_level | set(setup_arguments["package_dir"]) == set(PACKAGES)
    assert setup_arguments["package_dir"] == {"shanshui": FOLDERS["shanshui"]}


def test_requirements_are_what_the_packages_import(setup_arguments):
    third_party = set().union(*map(imported_modules, FOLDERS.values())) - set(sys.stdlib_module_names) - set(PACKAGES)
    distributions = importlib.metadata.packages_distributions()
    imported = {distributions.get(module, [module])[0].lower().replace("-", "_") for module in third_party}
    required = {name_of(requirement) for requirement in setup_arguments["install_requires"]}
    assert imported - required == IN_EXTRAS | ASKED_FOR_BY_NAME
    assert required - imported == set(USED_BY_OTHERS) - imported


def test_what_only_extras_bring_is_in_the_extras_that_need_it(setup_arguments):
    brought = {group: {name_of(line) for line in lines} for group, lines in setup_arguments["extras_require"].items()}
    assert brought["web"] == {"gradio"} and brought["test-web"] == {"gradio", "playwright", "trackio"}
    assert brought["eval"] == {"scikit_image"}
    assert brought["train"] | brought["distributed"] | brought["web"] == IN_EXTRAS
    assert IN_EXTRAS - {"tokenizers", "gradio"} <= brought["test"]  # transformers requires tokenizers


def test_floors_are_versions_that_the_tests_run_on(setup_arguments):
    # The test command installs only these.
    groups = [setup_arguments["install_requires"], setup_arguments["extras_require"]["test"]]
    for requirement in (requirement for group in groups for requirement in group):
        name, floor = re.fullmatch(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)(?:,<[\d.]+)?", requirement).groups()
        installed = importlib.metadata.version(name)
        numbers = [int(number) for number in re.findall(r"\d+", installed)]
        assert numbers >= [int(number) for number in floor.split(".")], (requirement, installed)


def test_every_floor_states_its_reason():
    lines = (ROOT / "setup.py").read_text(encoding="utf-8").partition("install_requires=[")[2].partition("],")[0]
    requirements = [line for line in lines.splitlines() if line.strip()]
    assert all(re.search(r'^ +"[^"]+>=[\d.]+",  # \w.{8,}', line) for line in requirements), lines


def test_gradio_fits_beside_the_base(setup_arguments):
    """`pip install ".[web]"` has a solution: for each package that both require, one version suits both."""
    pytest.importorskip("gradio", reason="gradio is not installed; the extra `web` brings it")
    ours = {name_of(line): Requirement(line).specifier for line in setup_arguments["install_requires"]}
    theirs = [Requirement(line) for line in importlib.metadata.requires("gradio")]
    shared = {name_of(each.name): each.specifier for each in theirs if name_of(each.name) in ours and not each.marker}
    assert {"pillow", "numpy", "huggingface_hub", "typer"} <= set(shared)
    for name, specifier in shared.items():
        versions = [importlib.metadata.version(name), *(each.version for each in ours[name])]
        assert any(version in specifier and version in ours[name] for version in versions), name


def test_the_script_for_the_oldest_versions_runs():
    script = ROOT / "tests" / "oldest.sh"
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0
    assert '--resolution lowest-direct ".[test]"' in script.read_text(encoding="utf-8")


def test_ci_runs_the_command_of_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^pip install .*$", readme, re.MULTILINE)
    assert commands[0].startswith("pip install . && landscape-video generate ")
    assert commands[1] == 'pip install ".[test]" && pytest'
    script = (ROOT / ".ci" / "run").read_text()
    # The script finds the line in the README by this pattern; its first match must be the line above.
    pattern = re.search(r"grep -m 1 -x '(.+)' README\.md", script)[1]
    found = subprocess.run(
        ["grep", "-m", "1", "-x", pattern, "README.md"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == commands[1]
    assert "ruff check ." in script and "ruff format --check ." in script
    assert subprocess.run(["bash", "-n", str(ROOT / ".ci" / "run")]).returncode == 0


def test_the_command_of_the_readme_is_installed(setup_arguments):
    (script,) = setup_arguments["entry_points"]["console_scripts"]
    name, target = (part.strip() for part in script.split("="))
    assert name == "landscape-video"
    module, function = target.split(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_the_wheel_holds_the_code_and_the_embedded_model_and_nothing_else(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for name in ("setup.py", "README.md", "LICENSE", "pyproject.toml"):
        shutil.copy(ROOT / name, source)
    for folder in FOLDERS.values():
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
    # A file of a few bytes for each kind of file of the model, at each depth.
    model = source / "pipeline_landscape_video" / "shanshui_tiny"
    for name in (
        "model_index.json",
        "README.md",
        "unet/config.json",
        "unet/weights.safetensors",
        "tokenizer/merges.txt",
    ):
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_text("{}")
    for stray in ("tests/test_x.py", "training/x.py", "runs/x.py", "notes/__init__.py"):
        (source / stray).parent.mkdir(parents=True, exist_ok=True)
        (source / stray).write_text("")
    command = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "--no-index"]
    build = subprocess.run([*command, "-w", str(tmp_path)], cwd=source, capture_output=True, text=True, timeout=120)
    assert build.returncode == 0, build.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        f"{package}/{file.relative_to(source / folder)}"
        for package, folder in FOLDERS.items()
        for file in (source / folder).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert {name for name in names if ".dist-info/" not in name} == wanted
    assert any(name.endswith("LICENSE") for name in names)


def test_python_floor_is_that_of_the_requirements(setup_arguments):
    floors = [importlib.metadata.metadata(name)["Requires-Python"] for name in ("diffusers", "torch", "transformers")]
    ours = re.fullmatch(r">=3\.(\d+)", setup_arguments["python_requires"])[1]
    assert int(ours) >= max(int(re.search(r">=3\.(\d+)", floor)[1]) for floor in floors)
