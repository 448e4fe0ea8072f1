"""The miniature study on small random models: painted, measured and told; the trainings are real, of one step."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from landscape_video.evaluation.metrics.measurements import MetricModels
from landscape_video.evaluation.metrics.weights import hash_weights
from landscape_video.evaluation.results import read_results
from landscape_video.training.data.latent_store import write_shard
from miniature_claims import runs_of
from miniature_figures import held_out_losses, load_held_out, measure_run, read_measured
from miniature_study import SETTINGS_FILE, main
from miniature_training import Settings, trained_folder, training_command
from training_runs import run_trainer, write_image_model


ROWS = ["full", "without_versatile", "threshold_2"]
RUNS = runs_of(ROWS, seeds=2)
PROMPTS, CLIPS = 2, 3


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> Path:
    """What the study reads of `train_tiny.py`: an image model, and clips of 16 frames as latents."""
    folder = tmp_path_factory.mktemp("shanshui")
    write_image_model(folder / "base")
    (folder / "latents").mkdir()
    write_shard(folder / "latents", 0, torch.randn(4, 16, 4, 8, 8, generator=torch.Generator().manual_seed(0)))
    rows = [{"text": f"mist over mountains {number}", "texts": []} for number in range(4)]
    (folder / "latents" / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def output(run_dir, tmp_path_factory) -> Path:
    """A study whose runs are trained and measured, in this process: each of its own would take seconds to start."""
    output = tmp_path_factory.mktemp("study")
    base = run_dir / "base"
    made_of = {part: hash_weights(base / part) for part in ("unet", "text_encoder", "vae")}
    made_of["latents"] = hash_weights(run_dir / "latents" / "latents-00000.safetensors")
    settings = Settings(1, 8.0, 1.5, 2, "no", "cpu", False, made_of)
    (output / SETTINGS_FILE).write_text(json.dumps(asdict(settings)))
    held_out = load_held_out(base, output, CLIPS, "cpu", workers=0)
    models = MetricModels.load()
    for run in RUNS:
        folder = trained_folder(output, run)
        flags = training_command(run, run_dir, folder, settings)[2:]
        assert run_trainer(base, run_dir / "latents", folder, *flags) == 0
        measure_run(folder / "motion_adapter", base, output, held_out, PROMPTS, models, "cpu", "float32", steps=1)
    return output


def tell(run_dir: Path, output: Path) -> int:
    arguments = ["--run_dir", run_dir, "--output", output, "--seeds", 2, "--prompts", PROMPTS]
    arguments += ["--held_out_clips", CLIPS, "--sampling_steps", 1, "--workers", 1, "--rows", *ROWS]
    return main([str(argument) for argument in arguments])


def test_a_study_is_told(run_dir, output):
    assert tell(run_dir, output) == 0
    results = read_results(output)
    names = ["full model", "without Versatile", "threshold 2", "still", "rendered"]
    assert [system.name for system in results.systems] == names
    full = results.systems[0]
    assert {"CLIP-text[shanshui-clip]", "FVD16[shanshui-clip]", "camera accuracy", "flicker"} < set(full.metrics)
    losses = np.mean([read_measured(next(output.glob(f"measured/full-seed{seed}-*.npz"))).losses for seed in (0, 1)])
    assert full.metrics["diffusion loss"].value == pytest.approx(losses)
    assert all((output / clip.file).exists() for system in results.systems for clip in system.clips)
    assert "1 steps of 2 clips" in results.protocol["budget"] and str(run_dir) not in json.dumps(results.protocol)
    text = (output / "results.md").read_text()
    assert "| full model (2) |" in text and "| threshold 2 (1) |" in text
    assert "- The paper says that Versatile attention helps (Table II). At 1 steps this study" in text
    assert "SOFP quadratic" in text and str(run_dir) not in text
    assert 10_000 < (output / "report.html").stat().st_size < 3_000_000


def test_nothing_is_done_twice(run_dir, output):
    tell(run_dir, output)
    kept = [path for folder in ("painted", "measured", "trained") for path in (output / folder).rglob("*.*")]
    times = {path: path.stat().st_mtime_ns for path in kept}
    assert len(times) > len(RUNS) * PROMPTS and tell(run_dir, output) == 0
    assert times == {path: path.stat().st_mtime_ns for path in times}


def test_losses_are_paired_and_know_an_adapter_that_does_nothing(run_dir, output):
    """A new adapter adds nothing to the image model; of the same clip the loss is the same each time."""
    held_out = load_held_out(run_dir / "base", output, CLIPS, "cpu", workers=0)
    alone = held_out_losses(None, run_dir / "base", held_out, "cpu", "float32")
    again = held_out_losses(None, run_dir / "base", held_out, "cpu", "float32")
    assert alone.shape == (CLIPS,) and np.array_equal(alone, again) and len(set(alone)) == CLIPS
    adapter = trained_folder(output, RUNS[0]) / "motion_adapter"
    trained = held_out_losses(adapter, run_dir / "base", held_out, "cpu", "float32")
    assert not np.array_equal(trained, alone) and trained == pytest.approx(alone, rel=0.1)


def test_a_folder_without_models_is_one_line(tmp_path, capsys):
    assert tell(tmp_path, tmp_path / "study") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("miniature_study.py: ") and "has no latents/latents-00000.safetensors" in line
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--rows", "fulll"], "invalid choice: 'fulll'"),
        (["--minutes", "0"], "--minutes must be greater than 0, got 0.0."),
        (["--seeds", "11"], "--seeds must be at most 10, for which margins are known, got 11."),
        (["--prompts", "60"], "--held_out_clips must be at least --prompts, 60, got 48."),
    ],
)
def test_wrong_flags_are_refused(flags, message, capsys):
    with pytest.raises(SystemExit) as end:
        main(flags)
    assert end.value.code == 2 and message in capsys.readouterr().err
