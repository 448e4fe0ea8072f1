"""The figures of animated pictures on clips with known answers, and a whole run on a small random pipeline."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline_landscape_video import ImageRetention, LandscapeVideoPipeline
from shanshui.measure_image_to_video import another_camera, main, parse_args
from shanshui.measuring.animated_clips import Animation
from shanshui.measuring.animation_figures import (
    Seen,
    beginning_check,
    camera_check,
    colour_drift,
    drift_checks,
    fidelity_checks,
    held_check,
    same_palette_scores,
    stage_jump,
    stages_check,
    text_check,
)
from shanshui.measuring.clip_motion import ClipMotion
from shanshui.renderer.constants import PICTURES_SEED
from shanshui.renderer.scene import CAMERAS, Scene
from tiny_clip import save_tiny_clip


def grey_clip(*levels: int) -> np.ndarray:
    return np.repeat(np.array(levels, np.uint8), 8 * 8 * 3).reshape(len(levels), 8, 8, 3)


def seen_with(cameras: list[str], first: float = 0.9, drift: float = 0.0) -> Seen:
    count = len(cameras)
    motions = [ClipMotion(camera, 0.0, 0.0, 1.0, 1.0) for camera in cameras]
    ones = np.ones(count)
    return Seen(first * ones, first * ones, motions, ones, drift * np.ones((count, 3)))


def test_a_jump_between_stages_is_told_from_motion_within():
    assert stage_jump(grey_clip(0, 10, 20, 30, 40, 50), 3) == 1
    assert stage_jump(grey_clip(0, 10, 20, 60, 70, 80), 3) == 4
    assert stage_jump(grey_clip(0, 10, 20, 20, 30, 40), 3) == 0
    assert stage_jump(grey_clip(5, 5, 5, 5), 2) == 0 and stage_jump(grey_clip(5, 5, 9, 9), 2) == np.inf
    smooth, jumping = [grey_clip(0, 10, 20, 30)] * 4, [grey_clip(0, 10, 40, 50)]
    assert stages_check(smooth, 2)[0].passed
    share, median = stages_check(smooth + jumping, 2)
    assert share.passed is False and share.figure.value == 0.8 and median.figure.value == 1


def test_drift_is_the_change_of_each_channel():
    clip = grey_clip(100, 200, 110)
    clip[-1, ..., 2] = 49
    assert colour_drift(clip) == pytest.approx([10 / 255, 10 / 255, 51 / 255])
    still, moving = seen_with(["left"] * 3), seen_with(["left"] * 3, drift=0.08)
    assert [check.passed for check in drift_checks(still, still)] == [True, True, True, None]
    assert [check.passed for check in drift_checks(moving, still)] == [False, False, False, None]
    assert all(check.passed for check in drift_checks(moving, moving)[:3])  # the rendered clips change as much


def test_fidelity_is_measured_against_the_autoencoder_and_against_chance():
    ssim, clip = fidelity_checks(seen_with(["left"] * 4, 0.9), np.full(4, 0.92), np.full(4, 0.8))
    assert ssim.passed and ssim.figure.value == pytest.approx(0.9 / 0.92) and clip.passed
    ssim, clip = fidelity_checks(seen_with(["left"] * 4, 0.8), np.full(4, 0.92), np.full(4, 0.8))
    assert not ssim.passed and not clip.passed


def test_a_held_first_frame_is_not_judged_but_how_the_clip_leaves_it_is():
    held = held_check(seen_with(["left"] * 4, 0.9), np.full(4, 0.9))
    assert held.figure.value == pytest.approx(1) and held.passed is None
    smooth, jumping = grey_clip(0, 10, 20, 30), grey_clip(0, 16, 26, 36)
    assert beginning_check([smooth] * 4).passed and not beginning_check([smooth] * 3 + [jumping]).passed


def test_chance_is_the_likeness_of_other_pictures_of_the_palette():
    embeddings = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    scores = same_palette_scores(embeddings, ["ink", "ink", "snow", "ink"])
    assert scores == pytest.approx([(0.6 + 1) / 2, 0.6, (1 + 0.6) / 2])


def test_texts_steer():
    cameras = np.array(["left", "right", "closer", "away"] * 5)
    rendered = seen_with(list(cameras))
    assert camera_check(rendered, rendered, cameras).passed
    assert not camera_check(seen_with(["left"] * 20), rendered, cameras).passed
    opposite = np.array(["right", "left", "away", "closer"] * 5)
    assert text_check(cameras, opposite, cameras).passed
    assert not text_check(cameras, cameras, cameras).passed
    assert not text_check(cameras, opposite, opposite).passed  # noise alone changes as much


def test_the_text_asks_for_another_camera_than_the_pictures_scene():
    for camera in CAMERAS:
        others = [another_camera(Scene(camera=camera), index) for index in range(8)]
        assert camera not in others and len(set(others)) == 4


def test_clips_of_other_settings_are_kept_apart():
    plain = Animation(4.0)
    variants = [plain, *(replace(plain, **{name: 0.5}) for name in ("image_guidance_scale", "retention_scale"))]
    variants += [replace(plain, stages=2), replace(plain, retention_scale=0), replace(plain, noise=1)]
    variants += [replace(plain, eta=1.0), replace(plain, guidance_order="picture_first")]
    variants += [replace(plain, hold_first_frame=True)]
    assert len({variant.name for variant in variants}) == len(variants)


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
    assert card.count("| text alone | ") == 1 and "camera right, times the rendered clips'" in card
    content = json.loads((tmp_path / "measure" / "results.json").read_text())
    assert content["settings"]["pictures"] == 2 and content["figures"]["pictured"]["camera"]["count"] == 2
    made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("generated/**/*.npy")}
    assert len(made) == 2 + 2 + 2 + 1 + 1 + 1
    assert np.load(next(path for path in made if "-x2" in path.parent.name)).shape == (6, 64, 64, 3)
    assert str(main(arguments).checks) == str(results.checks)
    assert {path: path.stat().st_mtime_ns for path in made} == made
    alone = main([*arguments, "--workers", "1", "--output", str(tmp_path / "alone")])
    assert alone.figures["pictured"]["FFF-SSIM"].value == pytest.approx(
        results.figures["pictured"]["FFF-SSIM"].value, abs=1e-3
    )


def test_wrong_input(tmp_path, capsys):
    for arguments, message in (
        (["--seed", "3"], "--seed 3 is the seed of clips"),
        (["--seed", str(PICTURES_SEED)], f"--seed {PICTURES_SEED} is the seed of clips"),
        (["--pictures", "1"], "--pictures is 1, but has to be at least 2"),
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
