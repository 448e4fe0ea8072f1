"""The loop trains any recipe, without a command line, and resumes it bit for bit."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import DataLoader

from landscape_video.training.objectives.recipe import Recipe, log_terms
from landscape_video.training.run.signals import StopSignals
from landscape_video.training.run.training_loop import train
from landscape_video.training.run.training_run import TrainingRun
from landscape_video.training.settings.training import MotionTraining
from training_runs import digest, forget_accelerators, log_of, status_of


class LineRecipe(Recipe):
    """A line through points, of which only the slope is exported."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.line = self.model = nn.Linear(1, 1)
        self.frozen = []

    def trainable(self) -> dict[str, nn.Parameter]:
        return dict(self.line.named_parameters())

    def averaged(self) -> dict[str, nn.Parameter]:
        return {"weight": self.line.weight}

    def compute_losses(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        error = (self.model(batch[:, :1]) - batch[:, 1:]).square().mean()
        size = self.line.weight.square().sum()
        return {"total": error + 0.01 * size, "error": error, "size": size}

    def export(self, directory: Path | None, final: bool = False) -> None:
        save_file({"slope": self.line.weight.detach()}, directory / ("final" if final else "slope"))


class Steps:
    """Batches from `first_step` on."""

    first_step = 0

    def __iter__(self) -> Iterator[list[int]]:
        return iter([[step, step + 1] for step in range(self.first_step, 6)])

    def __len__(self) -> int:
        return 6 - self.first_step


def train_line(output_dir: Path, **options) -> int:
    forget_accelerators()
    settings = MotionTraining.from_options(
        pretrained_model_name_or_path="none",
        train_data_dir=Path("none"),
        output_dir=output_dir,
        learning_rate=0.1,
        logging_steps=1,
        use_ema=True,
        **{"max_train_steps": 6} | options,
    )
    points = torch.stack([torch.linspace(-1, 1, 7), torch.linspace(-2, 2, 7)], dim=1)
    recipe = LineRecipe()
    optimizer = torch.optim.AdamW(recipe.trainable().values(), lr=0.1, fused=True)
    run = TrainingRun.start(settings, StopSignals())
    return train(recipe, DataLoader(points, batch_sampler=Steps()), optimizer, run)


def test_a_recipe_is_trained_exported_and_resumed(tmp_path):
    assert train_line(tmp_path / "whole") == 0
    assert status_of(tmp_path / "whole")["status"] == "finished"
    lines = log_of(tmp_path / "whole")
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert {"error_loss", "size_loss"} < lines[0].keys() and "total_loss" not in lines[0]
    assert lines[-1]["error_loss"] < lines[0]["error_loss"]

    assert train_line(tmp_path / "parts", max_train_minutes=1e-9) == 0
    assert train_line(tmp_path / "parts", resume_from_checkpoint="latest") == 0
    for file in ("final", "checkpoint-6/training_state.safetensors"):
        assert digest(tmp_path / "whole" / file) == digest(tmp_path / "parts" / file)


def test_the_average_of_what_a_recipe_names_is_exported(tmp_path):
    train_line(tmp_path, ema_decay=0.5)
    state = load_file(tmp_path / "checkpoint-6" / "training_state.safetensors")
    assert {name for name in state if name.startswith("ema/")} == {"ema/weight"}
    for file in ("final", "checkpoint-6/slope"):
        assert torch.equal(load_file(tmp_path / file)["slope"], state["ema/weight"])
    assert not torch.equal(state["ema/weight"], state["weights/weight"])


def test_a_checkpoint_says_what_it_was_trained_with(tmp_path):
    train_line(tmp_path, max_train_steps=1, seed=5)
    values = json.loads((tmp_path / "checkpoint-1" / "training_state.json").read_text())
    assert values["step"] == 1 and values["settings"]["seed"] == "5" and values["settings"]["num_clips"] == "7"


def test_the_log_leaves_out_the_sum_of_losses_unless_it_is_the_only_one():
    total, error = torch.tensor(3.0), torch.tensor(2.0, requires_grad=True)
    assert log_terms({"total": total, "error": error}) == {"error": error}
    assert not log_terms({"total": total, "error": error})["error"].requires_grad
    assert log_terms({"total": total}) == {"total": total}


def test_no_file_below_the_scripts_sees_argparse_namespaces():
    """Only `command_line.py` turns flags into settings."""
    package = Path(__file__).parents[3] / "landscape_video" / "training"
    using = [path.name for path in package.rglob("*.py") if "argparse" in path.read_text(encoding="utf-8")]
    assert using == ["command_line.py"]


def test_a_recipe_must_have_all_methods():
    class Partial(Recipe):
        def trainable(self) -> dict[str, nn.Parameter]:
            return {}

    with pytest.raises(TypeError, match="compute_losses"):
        Partial()
