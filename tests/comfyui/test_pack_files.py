"""The files of the node pack that ComfyUI and its registry read are complete and agree with each other."""

import ast
import json
import re
import subprocess
import sys
import tomllib

import pytest
from PIL import Image

from node_pack import PACK


LANGUAGES = ("en", "zh")
SOURCES = sorted(PACK.rglob("*.py"))


def texts(language):
    return json.loads((PACK / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))


def node_ids():
    code = "\n".join(file.read_text(encoding="utf-8") for file in (PACK / "nodes").glob("*.py"))
    return {f"LandscapeVideo{name}" for name in re.findall(r'node_id=f"\{PREFIX\}(\w+)"', code)}


def shape_of(definitions):
    """Return the names in a file of texts, without the texts."""
    return {
        node: (sorted(entry), sorted(entry["inputs"]), sorted(entry["outputs"])) for node, entry in definitions.items()
    }


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_node_has_texts(language):
    assert texts(language).keys() == node_ids()


def strings_of_nodes():
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in (PACK / "nodes").glob("*.py")]
    constants = (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return {node.value for node in constants if isinstance(node.value, str)}


def test_english_texts_are_those_of_the_nodes():
    for entry in texts("en").values():
        tooltips = {text["tooltip"] for text in entry["inputs"].values()}
        assert {entry["display_name"], entry["description"], *tooltips} <= strings_of_nodes()


@pytest.mark.parametrize("language", LANGUAGES)
def test_documents_repeat_the_texts(language):
    for node, entry in texts(language).items():
        document = (PACK / "web" / "docs" / node / f"{language}.md").read_text(encoding="utf-8")
        head, table = f"# {entry['display_name']}\n\n{entry['description']}\n\n", document.split("|---|---|\n")[1]
        assert document.startswith(head)
        assert table.splitlines() == [f"| `{name}` | {text['tooltip']} |" for name, text in entry["inputs"].items()]


def test_languages_have_the_same_texts():
    assert shape_of(texts("en")) == shape_of(texts("zh"))
    for entry in texts("zh").values():
        assert re.search(r"[\u4e00-\u9fff]", entry["display_name"] + entry["description"])


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: file.name)
def test_code_holds_no_chinese(file):
    # ComfyUI-Manager rejects it; translations belong into locales/.
    assert not re.search(r"[\u4e00-\u9fff]", file.read_text(encoding="utf-8"))


def test_project_file_says_what_the_registry_needs():
    project = tomllib.loads((PACK / "pyproject.toml").read_text(encoding="utf-8"))
    assert "comfyui" not in project["project"]["name"].lower()
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["project"]["version"])
    assert project["tool"]["comfy"]["DisplayName"] and project["tool"]["comfy"]["requires-comfyui"]
    requirements = (PACK / "requirements.txt").read_text(encoding="utf-8").split()
    assert requirements == project["project"]["dependencies"]
    assert "torch" not in requirements  # users keep theirs


EXAMPLES = sorted((PACK / "example_workflows").glob("*.json"))
API_EXAMPLES = sorted((PACK / "api_examples").glob("*.json"))


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_example_workflows_have_pictures_and_use_inputs_that_exist(file):
    with Image.open(file.with_suffix(".jpg")) as picture:
        assert picture.format == "JPEG" and min(picture.size) >= 256
    nodes = json.loads(file.read_text(encoding="utf-8"))["nodes"]
    ours = [node for node in nodes if node["type"] in node_ids()]
    assert ours
    for node in ours:
        assert {each["name"] for each in node["inputs"]} == texts("en")[node["type"]]["inputs"].keys()


def test_every_node_is_in_an_example():
    used = {node["type"] for file in EXAMPLES for node in json.loads(file.read_text(encoding="utf-8"))["nodes"]}
    assert node_ids() <= used


@pytest.mark.parametrize("file", API_EXAMPLES, ids=lambda file: file.stem)
def test_examples_for_programs_name_every_input(file):
    optional = {"recipe", "audio", "ad_settings"}
    for entry in json.loads(file.read_text(encoding="utf-8")).values():
        if entry["class_type"] in node_ids():
            known = texts("en")[entry["class_type"]]["inputs"].keys()
            assert known - optional <= entry["inputs"].keys() <= known


def test_nothing_but_the_nodes_of_the_package_imports_diffusers_or_the_package():
    for file in SOURCES:
        if file == PACK / "nodes" / "generation.py":
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names.append(node.module)
            assert not {name.split(".")[0] for name in names} & {"diffusers", "safetensors", "landscape_video"}, file


def test_the_pack_is_imported_without_comfyui_and_without_torch():
    code = "import sys, comfyui_landscape_video; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=PACK.parent, check=True)
