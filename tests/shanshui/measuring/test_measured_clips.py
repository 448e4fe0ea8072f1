"""Clips that are made and stored, the classifier that judges them, and controls that notice ignored arguments."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from shanshui.measuring.measure_controls import SHORT, ControlChecks, composition_distance, motif_caption
from shanshui.measuring.measured_clips import ClipMaker, Request, Variant, prompts_of
from shanshui.measuring.scene_classifiers import (
    HEADS,
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
from shanshui.renderer.rendering import render_clip
from shanshui.renderer.scene import Scene


RICH = Scene(water="lake", boat="left", mist="right", birds="left", trees="pines", light="moon", pavilion=True, seed=7)


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


def test_processes_make_the_same_clips(model, tmp_path):
    variant = Variant(num_frames=2)
    here = make_maker(model, tmp_path / "here", batch=1).clips(REQUESTS, variant)
    maker = make_maker(model, tmp_path / "there", batch=1, workers=2)
    there = maker.clips(REQUESTS, variant)
    assert maker.made == 3 and maker.seconds > 0
    assert max(np.abs(one.astype(int) - other).max() for one, other in zip(here, there, strict=True)) <= 1


def test_bfloat16_clips_are_nearly_the_same(model, tmp_path):
    variant = Variant(num_frames=2)
    exact, rough = (
        make_maker(model, tmp_path, dtype=dtype).clips(REQUESTS, variant) for dtype in ("float32", "bfloat16")
    )
    difference = np.abs(np.stack(exact).astype(int) - np.stack(rough))
    assert 0 < difference.mean() < 3


def test_other_weights_settings_and_prompts_are_other_clips(model, tmp_path):
    maker = make_maker(model, tmp_path)
    assert make_maker(model, tmp_path, steps=3).folder != maker.folder != make_maker(model, tmp_path, seed=4).folder
    assert replace(REQUESTS[0], negative_prompt="rain").file_name != REQUESTS[0].file_name
    variants = (Variant(), Variant(1.0), Variant(num_frames=8), Variant(noise=1), Variant(eta=1.0))
    assert len({variant.name for variant in variants}) == len(variants)
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
    short = replace(variant, num_frames=SHORT)
    scenes = [Scene(palette=palette, layers=2, seed=seed) for seed in (100, 101) for palette in PALETTES]
    requests = [Request(index, prompt) for index, prompt in enumerate(prompts_of(scenes, 3, "en"))]
    times = [0.0, 0.5, 1.0, 1.5]
    clips = [render_clip(scene, times, 64, 64) for scene in scenes]
    others = [replace(short, guidance_scale=1.0), replace(short, noise=1)]
    for one in (variant, short, *others):
        stored(maker, requests, one, clips)
    ignored = run_controls(maker, palette_classifier, scenes, requests, variant)
    for name in ("agreement with the prompt", "camera as asked", "change by another seed"):
        assert not ignored[name], name
    assert ignored["clips that the same seed makes again"] and ignored["palette right"] and ignored["camera right"]

    astray = [replace(scene, camera="left") for scene in scenes[1:] + scenes[:1]]  # the palette of another prompt
    stored(maker, requests, others[0], [render_clip(scene, times, 64, 64) for scene in astray])  # without guidance
    stored(maker, requests, others[1], [render_clip(replace(s, seed=s.seed + 1), times, 64, 64) for s in scenes])
    assert all(run_controls(maker, palette_classifier, scenes, requests, variant).values())

    stored(maker, requests, variant, clips[1:] + clips[:1])  # the whole length is worse than half of it
    assert not run_controls(maker, palette_classifier, scenes, requests, variant)["palette right"]


class Ignoring:
    """A pipeline that does as if it had not heard some arguments."""

    def __init__(self, pipe, **instead) -> None:
        self.pipe, self.instead = pipe, instead

    def __call__(self, **arguments):
        return self.pipe(**arguments | self.instead)


def fixed_noise() -> list[torch.Generator]:
    return [torch.Generator().manual_seed(0) for _ in REQUESTS]


@pytest.mark.parametrize(
    "instead, control",
    [
        ({"negative_prompt": None}, "probability of a motif"),
        ({"guidance_scale": 8.0}, "agreement with the prompt"),
        ({"guidance_scale": 8.0}, "camera as asked"),
        ({"generator": fixed_noise}, "change by another seed"),
        ({"generator": lambda: None}, "clips that the same seed makes again"),
    ],
    ids=["negative_prompt", "guidance_scale", "guidance_scale, camera", "seed", "seed, then noise at random"],
)
def test_a_pipeline_that_ignores_an_argument_fails(model, tmp_path, palette_classifier, instead, control):
    maker = make_maker(model, tmp_path / "clips", batch=3)
    pipe, make = maker.pipe, maker.make

    def make_ignoring(requests, variant):
        values = {name: value() if callable(value) else value for name, value in instead.items()}
        values = {name: value[: len(requests)] if isinstance(value, list) else value for name, value in values.items()}
        maker.pipe = Ignoring(pipe, **values)
        return make(requests, variant)

    maker.make = make_ignoring
    scenes = [Scene(palette=palette, light="moon", seed=seed) for seed, palette in enumerate(PALETTES[:3])]
    requests = [Request(index, prompt) for index, prompt in enumerate(prompts_of(scenes, 3, "en"))]
    checks = ControlChecks(maker, palette_classifier, ("palette", "light"), Variant(num_frames=2))
    controls = {one.name.split(",")[0]: one for one in checks.run(scenes, requests, "en")}
    assert not controls[control].passed
    assert controls[control].figure.value == 0


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
        stored(maker, negated, checks.short, [with_negative] * 2)
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
