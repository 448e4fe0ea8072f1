"""The measurers of the tiny family on clips with known answers, and a whole run on a small random pipeline."""

import json
import math
from dataclasses import replace

import cv2
import numpy as np
import pytest

from caption_parser import find_attributes, parse_caption
from landscape_video.evaluation.metrics.intervals import (
    Interval,
    balanced_accuracy,
    bootstrap,
    mean,
    ratio_of_means,
    ratio_of_medians,
)
from shanshui.measure import main, parse_args
from shanshui.measuring.clip_figures import (
    Truth,
    agreement,
    camera_counts,
    clip_figures,
    figures_beside,
    judge,
    still_clips,
)
from shanshui.measuring.clip_motion import camera_direction, measure_motion
from shanshui.measuring.measure_controls import motif_caption
from shanshui.measuring.measure_report import (
    LanguageResults,
    MeasurerResults,
    Results,
    contact_strip,
    markdown,
    write_contact_sheets,
    write_json,
)
from shanshui.measuring.measured_clips import prompts_of
from shanshui.measuring.model_fidelity import reconstruct, ssim_and_psnr
from shanshui.measuring.scene_classifiers import (
    HEADS,
    MOTIFS,
    SceneClassifier,
)
from shanshui.renderer.constants import FPS
from shanshui.renderer.dataset import render_dataset
from shanshui.renderer.rendering import render_clip
from shanshui.renderer.scene import CAMERAS, Scene
from shanshui.stages.model_card import put_measured
from tiny_clip import save_tiny_clip


RICH = Scene(water="lake", boat="left", mist="right", birds="left", trees="pines", light="moon", pavilion=True, seed=7)


def drifting_texture(speed: float, frames: int = 6, size: int = 64) -> np.ndarray:
    """A smooth random texture that moves `speed` pixels a frame to the right; grey, uint8 RGB."""
    noise = cv2.GaussianBlur(np.random.default_rng(0).random((size, 4 * size)).astype(np.float32), (0, 0), 2.5)
    texture = (noise - noise.min()) / (noise.max() - noise.min()) * 200 + 20
    clip = []
    for k in range(frames):
        shift = np.float32([[1, 0, speed * k - size], [0, 1, 0]])
        clip.append(cv2.warpAffine(texture, shift, (size, size), flags=cv2.INTER_CUBIC))
    return np.repeat(np.clip(np.stack(clip), 0, 255).astype(np.uint8)[..., None], 3, axis=-1)


@pytest.fixture(scope="module")
def rendered_clips() -> tuple[list[Scene], list[np.ndarray]]:
    """Three clips for each camera, 8 frames of 64 x 64, in which other things move, too."""
    base = (
        Scene(palette="ink", water="lake", birds="right", trees="pines", light="moon", pavilion=True, seed=7),
        Scene(palette="blue_green", mist="left", light="sun", waterfall=True, seed=3),
        Scene(palette="snow", water="river", birds="left", seed=4),
    )
    scenes = [replace(scene, camera=camera) for camera in CAMERAS for scene in base]
    return scenes, [render_clip(scene, [k / FPS for k in range(8)], 64, 64) for scene in scenes]


def test_camera_of_rendered_clips(rendered_clips):
    scenes, clips = rendered_clips
    assert [camera_direction(clip) for clip in clips] == [scene.camera for scene in scenes]


def test_still_clips_do_not_move(rendered_clips):
    _, clips = rendered_clips
    for clip in still_clips(clips[:3]):
        motion = measure_motion(clip)
        assert motion.camera == "still"
        assert motion.magnitude == pytest.approx(0, abs=1e-3)
        assert motion.flicker == pytest.approx(0, abs=1e-3)


def test_magnitude_is_the_speed_and_even_motion_is_no_flicker():
    slow, fast = (measure_motion(drifting_texture(speed)) for speed in (0.75, 1.5))
    assert slow.magnitude == pytest.approx(0.75, rel=0.1)
    ratio = bootstrap(ratio_of_medians, np.array([slow.magnitude]), np.array([fast.magnitude]))
    assert ratio.value == pytest.approx(0.5, rel=0.1)
    assert (slow.camera, fast.camera) == ("left", "left")
    assert fast.flicker < 1.5


def test_flicker_is_what_flow_cannot_explain():
    clip = drifting_texture(0)
    flashing = clip.astype(int)
    flashing[1::2] += 12
    flashing = np.clip(flashing, 0, 255).astype(np.uint8)
    assert measure_motion(flashing).flicker == pytest.approx(12, rel=0.25)
    noise = np.random.default_rng(1).normal(0, 6, clip.shape)
    noisy = measure_motion(np.clip(clip + noise, 0, 255).astype(np.uint8))
    assert noisy.flicker > 4 * measure_motion(clip).flicker + 2


def test_bootstrap_interval_of_a_share():
    values = np.arange(400) % 2
    interval = bootstrap(mean, values)
    assert interval.value == 0.5
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * 0.5 / 20, rel=0.15)
    assert interval == bootstrap(mean, values)
    assert interval.text() == f"0.50 [{interval.low:.2f}, {interval.high:.2f}]"


def test_bootstrap_draws_rows_together_and_survives_nothing():
    column = np.random.default_rng(0).random(30) + 1
    together = bootstrap(ratio_of_means, 3 * column, column)
    assert (together.low, together.high) == pytest.approx((3, 3))
    empty = bootstrap(mean, np.array([]))
    assert math.isnan(empty.value) and empty.count == 0 and empty.text() == "-"
    assert math.isnan(bootstrap(ratio_of_means, column, 0 * column).low)


def test_balanced_accuracy_does_not_reward_saying_nothing():
    truth = np.array([True] + [False] * 9)

    def figure(truth: np.ndarray, said: np.ndarray) -> float:
        return bootstrap(balanced_accuracy, truth, said).value

    assert figure(truth, np.zeros(10, bool)) == 0.5
    assert figure(truth, truth) == 1.0
    assert figure(np.zeros(4, bool), np.array([True, False, False, False])) == 0.75
    assert figure(np.stack([truth, truth], axis=1), np.stack([truth, ~truth], axis=1)) == 0.5
    interval = bootstrap(balanced_accuracy, truth, truth)
    assert (interval.low, interval.high) == (1.0, 1.0)  # also in draws without the one clip that has it


def test_figures_of_perfect_and_of_still_clips(rendered_clips):
    scenes, clips = rendered_clips
    truth = Truth.of(scenes)
    seen = judge(clips, SceneClassifier().eval())
    perfect = replace(seen, probabilities={name: np.eye(5)[labels] for name, labels in truth.labels.items()})
    figures = clip_figures(perfect, truth, HEADS) | figures_beside(perfect, perfect, truth)
    for name in ("palette", "camera", "motifs, mean", *MOTIFS, "lake or river", "sun or moon"):
        assert figures[name].value == 1, name
    assert figures["motion, times rendered"].value == figures["flicker, times rendered"].value == 1
    assert camera_counts(seen, truth) == {asked: {name: 3 * (name == asked) for name in CAMERAS} for asked in CAMERAS}
    ways = [f"way of the camera, times rendered, {which}" for which in ("pans", "zooms")]
    half = replace(perfect, pans=perfect.pans / 2, zooms=-perfect.zooms)
    for one, expected in ((perfect, (1, 1)), (half, (0.5, -1))):
        assert [figures_beside(one, perfect, truth)[way].value for way in ways] == pytest.approx(expected)
    np.testing.assert_allclose(agreement(perfect.probabilities, truth, HEADS), 1)
    still = judge(still_clips(clips), SceneClassifier().eval())
    assert clip_figures(still, truth, HEADS)["camera"].value == pytest.approx(1 / len(CAMERAS))
    assert figures_beside(still, perfect, truth)["motion, times rendered"].value == pytest.approx(0, abs=1e-3)
    assert "motifs, mean" not in clip_figures(seen, truth, ("palette",))


def test_prompts_tell_the_whole_scene_in_both_languages():
    scenes = [RICH, Scene(camera="away", palette="dawn")]
    for language in ("en", "zh"):
        prompts = prompts_of(scenes, 3, language)
        assert [parse_caption(prompt) for prompt in prompts] == [replace(scene, seed=0) for scene in scenes]
        assert prompts == prompts_of(scenes, 3, language) != prompts_of(scenes, 4, language)


@pytest.mark.parametrize("motif", MOTIFS)
@pytest.mark.parametrize("language", ["en", "zh"])
def test_negative_prompts_name_one_motif(motif, language):
    text = motif_caption(replace(RICH, waterfall=True), motif, np.random.default_rng(0), language)
    assert motif in find_attributes(text)
    assert not {"palette", "camera", "layers"} & set(find_attributes(text))


def test_fidelity(tiny_components):
    frames = render_clip(RICH, [0.0, 1.0], 64, 64)
    same = ssim_and_psnr(frames, np.clip(frames.astype(int) + 1, 0, 255).astype(np.uint8))
    assert same.shape == (2, 2) and (same[:, 0] > 0.99).all()
    assert same[:, 1] == pytest.approx(20 * math.log10(255), abs=0.1)
    vae = tiny_components()["vae"]
    rebuilt = reconstruct(vae, frames, chunk_size=1)
    assert rebuilt.shape == frames.shape and rebuilt.dtype == np.uint8
    np.testing.assert_allclose(rebuilt.astype(int), reconstruct(vae, frames), atol=1)


def sharp(value: float) -> Interval:
    return Interval(value, value - 0.01, value + 0.01, 20)


def make_results(**generated: float) -> Results:
    figures = {"palette": 1.0, "camera": 0.95, "motifs, mean": 0.9, "mist": 0.8, "motion, times rendered": 1.0}
    figures |= {"flicker, times rendered": 1.0}
    rendered = {name: sharp(value) for name, value in figures.items()}
    held_out = {name: sharp(0.95) for name in ("palette", "camera")} | {"mist": sharp(0.85)}
    generated = {name: sharp(value) for name, value in (figures | generated).items()}
    cameras = {asked: {name: 3 * (name == asked) for name in CAMERAS} for asked in CAMERAS}
    language = LanguageResults(generated, rendered, {"camera": sharp(0.2)}, cameras, [])
    settings = {"prompts": 20, "seed": 3, "steps": 25, "guidance_scale": 8.0, "eta": 0.0}
    settings |= {"num_frames": 16, "size": 128, "device": "CPU", "dtype": "float32", "versions": {"torch": "2"}}
    return Results(settings, MeasurerResults(held_out, {}, sharp(0.93), sharp(30), sharp(1.2)), {"en": language})


@pytest.mark.parametrize(
    "figure, good, bad",
    [
        ("palette", 0.91, 0.89),
        ("camera", 0.86, 0.85),
        ("motifs, mean", 0.82, 0.80),
        ("motion, times rendered", 0.51, 0.49),
        ("motion, times rendered", 1.99, 2.01),
        ("flicker, times rendered", 1.99, 2.01),
    ],
)
def test_bars(figure, good, bad):
    assert make_results(**{figure: good}).bars("en")[figure].passed
    assert not make_results(**{figure: bad}).bars("en")[figure].passed


def test_table_for_the_card(tmp_path):
    results = make_results(palette=0.5, camera=math.nan)
    text = markdown(results)
    rows = {}
    for line in text.splitlines():
        if line.startswith("|"):
            rows.setdefault(line.split(" | ")[0].strip("| "), line)
    assert rows["palette"] == (
        "| palette | 0.50 [0.49, 0.51] | 1.00 [0.99, 1.01] |  | 0.50 | >= 0.90 (0.9 of rendered) | **no** |"
    )
    assert rows["motifs, mean"].endswith("| 1.00 | >= 0.81 (0.9 of rendered) | yes |")
    assert "- palette, English: 0.500, wanted >= 0.90 (0.9 of rendered): **not met**" in text
    assert "- SSIM of the autoencoder: 0.930, wanted >= 0.92: met" in text
    assert "mist (invalid)" in rows and "0.20 [0.19, 0.21]" in rows["camera"]
    assert rows["SSIM"] == "| SSIM | 0.930 [0.920, 0.940] | >= 0.92 | yes |"
    assert rows["closer"] == "| closer | 0 | 0 | 0 | 3 | 0 |" and "| 1.20 [1.19, 1.21] |" in text
    assert "on 20 held-out prompts" in text and "torch 2" in text
    write_json(results, tmp_path / "results.json")
    read = json.loads((tmp_path / "results.json").read_text())
    assert read["languages"]["en"]["generated"]["camera"]["value"] is None
    assert [bar["passed"] for bar in read["languages"]["en"]["bars"]][:1] == [False]
    assert read["measurers"]["valid"] == ["palette", "camera"]


def test_measurer_that_is_not_valid_is_not_a_judge():
    results = make_results()
    held_out = results.measurers.held_out | {"palette": sharp(0.5)}
    results = replace(results, measurers=replace(results.measurers, held_out=held_out))
    assert results.bars("en")["palette"].passed is None
    assert "- palette, English: 1.000, wanted >= 0.90 (0.9 of rendered): not judged" in markdown(results)


def test_the_card_gets_the_tables_in_place_of_earlier_ones(tmp_path):
    card = tmp_path / "README.md"
    card.write_text("# tiny\n\nWords.\n", encoding="utf-8")
    put_measured(card, "first\n\n### English prompts\n")
    assert card.read_text(encoding="utf-8") == "# tiny\n\nWords.\n\n## Measured\n\nfirst\n\n### English prompts\n"
    card.write_text(card.read_text(encoding="utf-8") + "\n## After\n\nmore\n", encoding="utf-8")
    put_measured(card, "second")
    assert card.read_text(encoding="utf-8") == "# tiny\n\nWords.\n\n## Measured\n\nsecond\n\n## After\n\nmore\n"


def test_contact_sheets(tmp_path):
    clips = [np.full((5, 64, 64, 3), 10 * k, np.uint8) for k in range(3)]
    strip = contact_strip("a text", clips[1], clips[2], None)
    assert (strip[:64, :256] == 10).all() and (strip[:64, 272:] == 20).all() and strip[64:].min() < 100
    write_contact_sheets(tmp_path, "zh", ["一叶孤舟"] * 3, clips, clips, rows=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["prompts_zh.txt", "sheet_zh_1.png", "sheet_zh_2.png"]
    assert "2. 一叶孤舟" in (tmp_path / "prompts_zh.txt").read_text(encoding="utf-8")


def test_a_whole_run_and_its_resumption(model, tmp_path, tiny_components):
    save_tiny_clip(model / "clip", tiny_components()["tokenizer"])
    run_dir, output = tmp_path / "run", tmp_path / "measure"
    run_dir.mkdir()
    render_dataset(run_dir / "clips.npy", 4, seed=1, frames=4, size=64, fine_motifs=False, workers=0)
    render_dataset(run_dir / "held_out.npy", 3, seed=2, fps=FPS, size=64, fine_motifs=False, workers=0)
    arguments = [
        "--model", str(model), "--output", str(output), "--run_dir", str(run_dir), "--prompts", "2", "--steps", "1",
        "--control_prompts", "2", "--held_out_clips", "3", "--classifier_steps", "2", "--workers", "0",
        "--device", "cpu",
    ]  # fmt: skip
    (model / "README.md").write_text("# A card\n")
    results = main([*arguments, "--card"])
    assert set(results.languages) == {"en", "zh"}
    assert results.languages["en"].rendered["motion, times rendered"].value == 1
    assert results.languages["en"].still["motion"].value == pytest.approx(0, abs=1e-3)
    assert len(results.languages["en"].controls) in (6, 7, 8) and results.languages["zh"].controls == []
    assert "- flicker, times rendered, Chinese:" in (model / "README.md").read_text(encoding="utf-8")
    assert "CLIP-text" in results.languages["zh"].generated
    assert "### Chinese prompts" in (output / "results.md").read_text(encoding="utf-8")
    assert (output / "sheets" / "sheet_en_1.png").exists()
    made = {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.suffix in (".npy", ".safetensors")}
    assert len(made) >= 12
    again = main([*arguments, "--language", "zh"])
    assert {path: path.stat().st_mtime_ns for path in made} == made
    # As text, where NaN equals itself.
    assert str(again.languages["zh"].generated) == str(results.languages["zh"].generated)
    assert "zh" in again.languages and "en" not in again.languages


def test_wrong_input(tmp_path, capsys):
    for arguments, message in (
        (["--seed", "2"], "--seed 2 is the seed of clips"),
        (["--model", str(tmp_path)], "has no model_index.json"),
    ):
        with pytest.raises(SystemExit) as error:
            parse_args(arguments)
        assert error.value.code == 2 and message in capsys.readouterr().err
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(SystemExit):
        parse_args(["--model", str(tmp_path), "--card"])
    assert "has no README.md" in capsys.readouterr().err
    counts = [parse_args(["--prompts", str(prompts)]).control_prompts for prompts in (200, 20, 3)]
    assert counts == [33, 4, 3]
    with pytest.raises(SystemExit, match="train_tiny.py --stages render"):
        main(["--run_dir", str(tmp_path), "--output", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
