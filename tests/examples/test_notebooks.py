"""Run the notebooks, with fewer steps and in a folder of their own."""

from pathlib import Path

import nbclient
import nbformat
import pytest


NOTEBOOKS = Path(__file__).parents[2] / "examples" / "notebooks"
SHORTENED = {"num_inference_steps=25": "num_inference_steps=2", "--max_train_steps 10": "--max_train_steps 2"}


def run_notebook(name: str, folder: Path) -> str:
    """Run all cells, and return what they printed. The first cell goes to the root of the checkout."""
    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    for cell in notebook.cells:
        for old, new in {**SHORTENED, "runs/notebook": str(folder)}.items():
            cell.source = cell.source.replace(old, new)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(NOTEBOOKS)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return "".join(output.text for output in outputs if output.get("name") == "stdout")


def test_the_first_clip_is_repeated_and_animated(tmp_path):
    printed = run_notebook("first_clip.ipynb", tmp_path)
    assert "31 frames of (256, 256)" in printed and "bit-identical: True" in printed
    assert {path.name for path in tmp_path.iterdir()} == {"mist.gif", "birds.gif", "boat.gif"}


def test_an_adapter_is_trained_and_exported(tmp_path):
    printed = run_notebook("train_and_publish.ipynb", tmp_path)
    assert "'step': 2" in printed and "bit-identical: True" in printed
    assert (tmp_path / "export" / "model_index.json").is_file()


@pytest.mark.parametrize("name", ["first_clip.ipynb", "train_and_publish.ipynb"])
def test_the_notebook_is_stored_without_outputs(name):
    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)
