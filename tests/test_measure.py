"""The measurers of the tiny family on clips with known answers, and a whole run on a small random pipeline."""

import json
import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from captions import find_attributes, parse_caption
from clip_figures import Truth, agreement, clip_figures, figures_beside, judge, still_clips
from clip_files import render_dataset
from clip_motion import camera_direction, measure_motion
from intervals import Interval, balanced_accuracy, bootstrap, mean, ratio_of_means, ratio_of_medians
from measure import main, parse_args, read_clips
from measure_controls import ControlChecks, composition_distance, motif_caption
from measure_report import (
    LanguageResults,
    MeasurerResults,
    Results,
    contact_strip,
    markdown,
    write_contact_sheets,
    write_json,
)
from measured_clips import ClipMaker, Request, Variant, prompts_of
from model_fidelity import reconstruct, ssim_and_psnr
from painting import render_clip
from scene import CAMERAS, Scene
from scene_classifiers import (
    HEADS,
    MOTIFS,
    SceneClassifier,
    classify_clips,
    disturb,
    labels_of,
    load_classifier,
    save_classifier,
    shrink,
    to_pixels,
    train_classifier,
)


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
    return scenes, [render_clip(scene, [k / 8 for k in range(8)], 64, 64) for scene in scenes]


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


@pytest.fixture(scope="module")
def palette_classifier(tmp_path_factory) -> SceneClassifier:
    """Trained for seconds, on frames of 40 scenes: enough to know palettes."""
    scenes = [Scene(palette=palette, layers=2, seed=seed) for seed in range(8) for palette in PALETTES]
    frames = shrink(np.concatenate([render_clip(scene, [0.5], 64, 64) for scene in scenes]))
    log = tmp_path_factory.mktemp("classifier") / "log.jsonl"
    classifier = train_classifier(frames, labels_of(scenes), log, steps=40, batch_size=20)
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == [40]
    return classifier


PALETTES = ("ink", "blue_green", "autumn", "snow", "dawn")


def test_classifier_learns_and_is_saved(palette_classifier, tmp_path):
    scenes = [Scene(palette=palette, layers=2, seed=100) for palette in PALETTES]
    clips = [render_clip(scene, [0.0, 1.0], 64, 64) for scene in scenes]
    probabilities = classify_clips(palette_classifier, clips)
    assert (probabilities["palette"].argmax(1) == labels_of(scenes)["palette"]).mean() >= 0.8
    assert set(probabilities) == set(HEADS)
    save_classifier(palette_classifier, tmp_path / "classifier.safetensors")
    loaded = classify_clips(load_classifier(tmp_path / "classifier.safetensors"), clips)
    for name in HEADS:
        np.testing.assert_array_equal(loaded[name], probabilities[name])


def test_disturbances_keep_the_picture():
    frames = torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    disturbed = disturb(frames, torch.Generator().manual_seed(1))
    assert disturbed.shape == frames.shape and not torch.equal(disturbed, frames)
    assert (disturbed.mean((2, 3)) - frames.mean((2, 3))).abs().max() < 0.12


def test_labels_tell_presence_of_what_moves():
    labels = labels_of([RICH, Scene()])
    assert [labels[name].tolist() for name in ("boat", "mist", "birds", "trees")] == [[1, 0]] * 4
    assert labels["light"].tolist() == [2, 0] and labels["water"].tolist() == [1, 0]


def test_figures_of_perfect_and_of_still_clips(rendered_clips):
    scenes, clips = rendered_clips
    truth = Truth.of(scenes)
    seen = judge(clips, SceneClassifier().eval())
    perfect = replace(seen, probabilities={name: np.eye(5)[labels] for name, labels in truth.labels.items()})
    figures = clip_figures(perfect, truth, HEADS) | figures_beside(perfect, perfect, truth)
    for name in ("palette", "camera", "motifs, mean", *MOTIFS, "lake or river", "sun or moon"):
        assert figures[name].value == 1, name
    assert figures["motion, times rendered"].value == figures["flicker, times rendered"].value == 1
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


@pytest.fixture
def model(tiny_pipeline, tmp_path):
    """A folder with a small random pipeline."""
    tiny_pipeline().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def make_maker(model, folder, **changes) -> ClipMaker:
    arguments = {"steps": 2, "batch": 2, "seed": 3, "device": "cpu"} | changes
    return ClipMaker(model, folder, **arguments)


REQUESTS = [Request(0, "misty mountains"), Request(1, "a boat over the river"), Request(2, "pine", "rain")]


def test_clips_are_made_once(model, tmp_path):
    maker = make_maker(model, tmp_path / "clips")
    variant = Variant(num_frames=3)
    clips = maker.clips(REQUESTS[:1], variant)
    assert clips[0].shape == (3, maker.size, maker.size, 3) and clips[0].dtype == np.uint8 and maker.made == 1
    path = maker.folder / variant.name / REQUESTS[0].file_name
    np.save(path, 255 - clips[0])
    again = make_maker(model, tmp_path / "clips")
    more = again.clips(REQUESTS, variant)
    np.testing.assert_array_equal(more[0], 255 - clips[0])
    assert again.made == 2 and len(more) == 3
    # A clip depends on its own request, not on what else was in the batch.
    alone = make_maker(model, tmp_path / "other", batch=1).clips(REQUESTS, variant)
    assert np.abs(alone[2].astype(int) - more[2]).max() <= 1
    assert not list(tmp_path.rglob("*.part"))


def test_other_weights_settings_and_prompts_are_other_clips(model, tmp_path):
    maker = make_maker(model, tmp_path)
    assert make_maker(model, tmp_path, steps=3).folder != maker.folder != make_maker(model, tmp_path, seed=4).folder
    assert replace(REQUESTS[0], negative_prompt="rain").file_name != REQUESTS[0].file_name
    names = {Variant().name, Variant(1.0).name, Variant(num_frames=8).name, Variant(noise=1).name}
    assert len(names) == 4
    weights = model / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    assert make_maker(model, tmp_path).folder != maker.folder


def stored(maker: ClipMaker, requests, variant: Variant, clips) -> None:
    """Put clips where the maker finds them."""
    folder = maker.folder / variant.name
    folder.mkdir(parents=True, exist_ok=True)
    for request, clip in zip(requests, clips, strict=True):
        np.save(folder / request.file_name, clip)


def run_controls(maker, classifier, scenes, requests, variant) -> dict[str, bool]:
    controls = ControlChecks(maker, classifier, ("palette",), variant).run(scenes, requests, "en")
    return {control.name.split(",")[0]: control.passed for control in controls}


def test_controls_notice_arguments_that_are_ignored(model, tmp_path, palette_classifier):
    """The same clips whatever is asked for; then clips as they should be."""
    maker, variant = make_maker(model, tmp_path / "clips"), Variant(num_frames=16)
    scenes = [Scene(palette=palette, layers=2, seed=seed) for seed in (100, 101) for palette in PALETTES]
    requests = [Request(index, prompt) for index, prompt in enumerate(prompts_of(scenes, 3, "en"))]
    times = [0.0, 0.5, 1.0, 1.5]
    clips = [render_clip(scene, times, 64, 64) for scene in scenes]
    others = [replace(variant, guidance_scale=1.0), replace(variant, noise=1), replace(variant, num_frames=8)]
    for one in (variant, *others):
        stored(maker, requests, one, clips)
    ignored = run_controls(maker, palette_classifier, scenes, requests, variant)
    assert not ignored["agreement with the prompt"] and not ignored["change by another seed"]
    assert ignored["clips that the same seed makes again"] and ignored["palette right"] and ignored["camera right"]

    stored(maker, requests, others[0], clips[1:] + clips[:1])  # without guidance: the palette of another prompt
    stored(maker, requests, others[1], [render_clip(replace(s, seed=s.seed + 1), times, 64, 64) for s in scenes])
    assert all(run_controls(maker, palette_classifier, scenes, requests, variant).values())

    stored(maker, requests, variant, clips[1:] + clips[:1])  # the whole length is worse than half of it
    assert not run_controls(maker, palette_classifier, scenes, requests, variant)["palette right"]


def test_negative_control_notices_an_ignored_prompt(model, tmp_path):
    """A classifier that looks for brightness stands for one that looks for a moon."""
    present, absent = (np.full((2, 64, 64, 3), level, np.uint8) for level in (250, 5))
    classifier = SceneClassifier().eval().requires_grad_(False)
    seen = [classifier(to_pixels(clip[:1], "cpu"))["light"][0] for clip in (present, absent)]
    light = classifier.heads["light"]
    light.bias -= (seen[0] + seen[1]) / 2
    for layer in (light.weight, light.bias):
        layer *= 5 / (seen[1] - seen[0])[0]  # absence, index 0, in the dark
        layer[1:] = 0
    maker, variant = make_maker(model, tmp_path / "clips"), Variant()
    scenes = [Scene(light="moon", seed=k) for k in (1, 2)]
    requests = [Request(k, "a moon") for k in range(2)]
    checks = ControlChecks(maker, classifier, ("light",), variant)

    def check(with_negative: np.ndarray) -> bool:
        negated = []
        for request, scene in zip(requests, scenes, strict=True):
            rng = np.random.default_rng((scene.seed, 0))
            rng.integers(1)
            negated.append(replace(request, negative_prompt=motif_caption(scene, "light", rng, "en")))
        stored(maker, negated, variant, [with_negative] * 2)
        (control,) = checks.check_negative(scenes, requests, [present] * 2, "en")
        return control.passed

    assert not check(present)
    assert check(absent)
    assert maker.made == 0
    assert checks.check_negative([Scene()], requests[:1], [present], "en") == []


def test_composition_distance_is_about_large_shapes():
    frame = render_clip(RICH, [1.0], 64, 64)[0]
    other = render_clip(replace(RICH, seed=8), [1.0], 64, 64)[0]
    noisy = np.clip(frame + np.random.default_rng(0).normal(0, 8, frame.shape), 0, 255).astype(np.uint8)
    assert composition_distance(frame, frame) == 0
    assert composition_distance(frame, noisy) < 0.3 * composition_distance(frame, other)


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
    language = LanguageResults(generated, rendered, {"camera": sharp(0.2)}, [])
    settings = {"prompts": 20, "seed": 3, "steps": 25, "guidance_scale": 8.0, "num_frames": 16, "size": 128}
    settings |= {"device": "CPU", "versions": {"torch": "2"}}
    return Results(settings, MeasurerResults(held_out, {}, sharp(0.93), sharp(30)), {"en": language})


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
    assert rows["palette"] == "| palette | 0.50 [0.49, 0.51] | 1.00 [0.99, 1.01] |  | >= 0.90 | **no** |"
    assert rows["motifs, mean"].endswith("| >= 0.81 | yes |")
    assert "mist (invalid)" in rows and "0.20 [0.19, 0.21]" in rows["camera"]
    assert rows["SSIM"] == "| SSIM | 0.930 [0.920, 0.940] | >= 0.92 | yes |"
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
    assert "not judged" in markdown(results)


def test_contact_sheets(tmp_path):
    clips = [np.full((5, 64, 64, 3), 10 * k, np.uint8) for k in range(3)]
    strip = contact_strip("a text", clips[1], clips[2], None)
    assert (strip[:64, :256] == 10).all() and (strip[:64, 272:] == 20).all() and strip[64:].min() < 100
    write_contact_sheets(tmp_path, "zh", ["一叶孤舟"] * 3, clips, clips, rows=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["prompts_zh.txt", "sheet_zh_1.png", "sheet_zh_2.png"]
    assert "2. 一叶孤舟" in (tmp_path / "prompts_zh.txt").read_text(encoding="utf-8")


def save_tiny_clip(folder, tokenizer) -> None:
    """A random CLIP with what belongs to it."""
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTextConfig, CLIPVisionConfig

    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = CLIPTextConfig(
        vocab_size=len(tokenizer), bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, **size
    )
    vision = CLIPVisionConfig(image_size=64, patch_size=16, **size)
    CLIPModel(
        CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=16)
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 64}, crop_size=64).save_pretrained(folder)


def test_a_whole_run_and_its_resumption(model, tmp_path, tiny_components):
    save_tiny_clip(model / "clip", tiny_components()["tokenizer"])
    run_dir, output = tmp_path / "run", tmp_path / "measure"
    run_dir.mkdir()
    render_dataset(run_dir / "clips.npy", 4, seed=1, frames=4, size=64, fine_motifs=False, workers=0)
    render_dataset(run_dir / "held_out.npy", 3, seed=2, size=64, fine_motifs=False, workers=0)
    arguments = [
        "--model", str(model), "--output", str(output), "--run_dir", str(run_dir), "--prompts", "2", "--steps", "1",
        "--control_prompts", "2", "--held_out_clips", "3", "--classifier_steps", "2", "--workers", "0",
        "--device", "cpu",
    ]  # fmt: skip
    results = main(arguments)
    assert set(results.languages) == {"en", "zh"}
    assert results.languages["en"].rendered["motion, times rendered"].value == 1
    assert results.languages["en"].still["motion"].value == pytest.approx(0, abs=1e-3)
    assert len(results.languages["zh"].controls) in (5, 6, 7)
    assert "CLIP-text" in results.languages["zh"].generated
    assert "### Chinese prompts" in (output / "results.md").read_text(encoding="utf-8")
    assert (output / "sheets" / "sheet_en_1.png").exists()
    made = {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.suffix in (".npy", ".safetensors")}
    assert len(made) >= 2 * 2 * 4
    again = main([*arguments, "--language", "zh"])
    assert {path: path.stat().st_mtime_ns for path in made} == made
    assert str(again.languages["zh"]) == str(results.languages["zh"])  # as text, where NaN equals itself
    assert "zh" in again.languages and "en" not in again.languages


def test_wrong_input(tmp_path, capsys):
    with pytest.raises(SystemExit):
        parse_args(["--seed", "2"])
    assert "--seed 2 is the seed of clips" in capsys.readouterr().err
    counts = [parse_args(["--prompts", str(prompts)]).control_prompts for prompts in (200, 20, 3)]
    assert counts == [40, 4, 3]
    with pytest.raises(FileNotFoundError, match="train_tiny.py --stages render"):
        read_clips(tmp_path / "clips.npy")
