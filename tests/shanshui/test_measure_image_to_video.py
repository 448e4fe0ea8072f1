"""A whole measurement of animated images on a small random pipeline."""

import json

import numpy as np
import pytest
import torch

from pipeline_landscape_video import ImageRetention, LandscapeVideoPipeline
from shanshui.measure_image_to_video import another_camera, main, parse_args
from shanshui.renderer.scene import CAMERAS, PICTURES_SEED, Scene
from tiny_clip import save_tiny_clip


def test_the_text_asks_for_another_camera_than_the_scene_of_the_image():
    for camera in CAMERAS:
        others = [another_camera(Scene(camera=camera), index) for index in range(8)]
        assert camera not in others and len(set(others)) == 4


def test_a_whole_run_and_its_resumption(model, tmp_path, tiny_components):  # noqa: F811
    save_tiny_clip(model / "clip", tiny_components()["tokenizer"])
    pipe = LandscapeVideoPipeline.from_pretrained(model)
    branch = ImageRetention.from_unet(pipe.unet, generator=torch.Generator().manual_seed(0))
    branch.save_pretrained(model / "image_retention")
    arguments = [
        "--model", str(model), "--output", str(tmp_path / "measure"), "--run_dir", str(tmp_path), "--pictures", "2",
        "--pairs", "1", "--steps", "1", "--num_frames", "4", "--stage_frames", "3", "--device", "cpu",
        "--workers", "2",
    ]  # fmt: skip
    (model / "README.md").write_text("# A card\n\n## Measured\n\nearlier\n")
    for stage, steps in (("pictures", 7), ("retention", 5)):
        (tmp_path / stage).mkdir()
        (tmp_path / stage / "log.jsonl").write_text(f'{{"step": {steps}, "diffusion_loss": 0.5, "seconds": 120}}\n')
    results = main([*arguments, "--card"])
    assert results.figures.keys() == {"pictured", "free", "text_only", "rendered"} and len(results.checks) == 12
    assert results.figures["rendered"]["FFF-SSIM"].value == pytest.approx(1)  # they begin with the pictures
    card = (model / "README.md").read_text(encoding="utf-8")
    assert "## Measured\n\nearlier\n\n## Image to video\n" in card and "| image_retention | " in card
    assert "| pictures | 7 | 2.0 | diffusion_loss 0.5 |\n| retention | 5 | 2.0 |" in card
    assert card.count("| text only | ") == 1 and "camera accuracy, relative to rendered clips" in card
    content = json.loads((tmp_path / "measure" / "results.json").read_text())
    assert content["settings"]["pictures"] == 2 and content["figures"]["pictured"]["camera"]["count"] == 2
    made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("generated/**/*.npy")}
    assert len(made) == 2 + 2 + 2 + 1 + 1 + 1
    assert np.load(next(path for path in made if "-frames3-" in path.parent.name)).shape == (6, 64, 64, 3)
    assert str(main(arguments).checks) == str(results.checks)
    assert {path: path.stat().st_mtime_ns for path in made} == made
    alone = main([*arguments, "--workers", "1", "--output", str(tmp_path / "alone")])
    assert alone.figures["pictured"]["FFF-SSIM"].value == pytest.approx(
        results.figures["pictured"]["FFF-SSIM"].value, abs=1e-3
    )


def test_wrong_input(tmp_path, capsys):
    for arguments, message in (
        (["--seed", "3"], "--seed must be none of 1, 2, 3, 6, got 3"),
        (["--seed", str(PICTURES_SEED)], f"--seed must be none of 1, 2, 3, 6, got {PICTURES_SEED}"),
        (["--pictures", "1"], "--pictures must be at least 2, got 1"),
        (["--model", str(tmp_path)], "has no model_index.json"),
    ):
        with pytest.raises(SystemExit) as error:
            parse_args(arguments)
        assert error.value.code == 2 and message in capsys.readouterr().err
    for file in ("model_index.json", "clip/config.json"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("{}")
    with pytest.raises(SystemExit):
        parse_args(["--model", str(tmp_path)])
    assert "has no image_retention/config.json" in capsys.readouterr().err
