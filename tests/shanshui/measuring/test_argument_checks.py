"""Checks of arguments notice a pipeline that ignores one."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from caption_parser import find_attributes
from landscape_video.evaluation.metrics.scene_classifier import SceneClassifier, to_pixels
from shanshui.measuring.argument_checks import SHORT, ArgumentChecks, composition_distance, motif_caption
from shanshui.measuring.classifier_training import ATTRIBUTES, MOTIFS
from shanshui.measuring.measured_clips import ClipMaker, Request, Variant, prompts_of
from shanshui.renderer.rendering import render_clip
from shanshui.renderer.scene import PALETTES, Scene
from shanshui_clips import REQUESTS, make_maker, make_variant


RICH = Scene(water="lake", boat="left", mist="right", birds="left", trees="pines", light="moon", pavilion=True, seed=7)


def stored(maker: ClipMaker, requests, variant: Variant, clips) -> None:
    """Put clips where the maker finds them."""
    folder = maker.store / variant.name
    folder.mkdir(parents=True, exist_ok=True)
    for request, clip in zip(requests, clips, strict=True):
        np.save(folder / request.file_name, clip)


def run_checks(maker, classifier, scenes, requests, variant) -> dict[str, bool]:
    checks = ArgumentChecks(maker, classifier, variant).run(scenes, requests, "en")
    return {check.name.split(",")[0]: check.passed for check in checks}


def test_arguments_that_are_ignored_are_noticed(model, tmp_path, palette_classifier):
    """The same clips whatever is asked for; then clips as they should be."""
    maker, variant = make_maker(model, tmp_path / "clips"), make_variant(num_frames=16)
    short = variant.changed(num_frames=SHORT)
    scenes = [Scene(palette=palette, layers=2, seed=seed) for seed in (100, 101) for palette in PALETTES]
    requests = [Request(index, prompt) for index, prompt in enumerate(prompts_of(scenes, 3, "en"))]
    times = [0.0, 0.5, 1.0, 1.5]
    clips = [render_clip(scene, times, 64, 64) for scene in scenes]
    others = [short.changed(guidance_scale=1.0), replace(short, noise=1)]
    for one in (variant, short, *others):
        stored(maker, requests, one, clips)
    ignored = run_checks(maker, palette_classifier, scenes, requests, variant)
    for name in ("agreement with the prompt", "camera follows the prompt", "change by another seed"):
        assert not ignored[name], name
    assert (
        ignored["clips that the same seed reproduces"]
        and ignored["accuracy of palette"]
        and ignored["accuracy of camera"]
    )

    astray = [replace(scene, camera="left") for scene in scenes[1:] + scenes[:1]]  # the palette of another prompt
    stored(maker, requests, others[0], [render_clip(scene, times, 64, 64) for scene in astray])  # without guidance
    stored(maker, requests, others[1], [render_clip(replace(s, seed=s.seed + 1), times, 64, 64) for s in scenes])
    assert all(run_checks(maker, palette_classifier, scenes, requests, variant).values())

    stored(maker, requests, variant, clips[1:] + clips[:1])  # the whole length is worse than half of it
    assert not run_checks(maker, palette_classifier, scenes, requests, variant)["accuracy of palette"]


class Ignoring:
    """A pipeline that ignores some arguments, and takes others `instead`."""

    def __init__(self, pipe, **instead) -> None:
        self.pipe, self.instead, self.unet = pipe, instead, pipe.unet

    def __call__(self, **arguments):
        return self.pipe(**arguments | self.instead)


def fixed_noise() -> list[torch.Generator]:
    return [torch.Generator().manual_seed(0) for _ in REQUESTS]


@pytest.mark.parametrize(
    "instead, name",
    [
        ({"negative_prompt": None}, "motif probability"),
        ({"guidance_scale": 8.0}, "agreement with the prompt"),
        ({"guidance_scale": 8.0}, "camera follows the prompt"),
        ({"generator": fixed_noise}, "change by another seed"),
        ({"generator": lambda: None}, "clips that the same seed reproduces"),
    ],
    ids=["negative_prompt", "guidance_scale", "guidance_scale, camera", "seed", "seed, then noise at random"],
)
def test_a_pipeline_that_ignores_an_argument_fails(model, tmp_path, palette_classifier, instead, name):
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
    classifier = SceneClassifier(ATTRIBUTES, valid=("palette", "light")).eval()
    classifier.load_state_dict(palette_classifier.state_dict())
    checks = ArgumentChecks(maker, classifier, make_variant(num_frames=2)).run(scenes, requests, "en")
    check = {one.name.split(",")[0]: one for one in checks}[name]
    assert not check.passed
    assert check.figure.value == 0


def test_the_check_of_the_negative_prompt_notices_an_ignored_one(model, tmp_path):
    """A classifier that looks for brightness stands for one that looks for a moon."""
    present, absent = (np.full((2, 64, 64, 3), level, np.uint8) for level in (250, 5))
    classifier = SceneClassifier(ATTRIBUTES, valid=("light",)).eval().requires_grad_(False)
    seen = [classifier(to_pixels(clip[:1], "cpu"))["light"][0] for clip in (present, absent)]
    light = classifier.heads["light"]
    light.bias -= (seen[0] + seen[1]) / 2
    for layer in (light.weight, light.bias):
        layer *= 5 / (seen[1] - seen[0])[0]  # absence, index 0, in the dark
        layer[1:] = 0
    maker, variant = make_maker(model, tmp_path / "clips"), make_variant()
    scenes = [Scene(light="moon", seed=k) for k in (1, 2)]
    requests = [Request(k, "a moon") for k in range(2)]
    checks = ArgumentChecks(maker, classifier, variant)

    def check(with_negative: np.ndarray) -> bool:
        negated = []
        for request, scene in zip(requests, scenes, strict=True):
            rng = np.random.default_rng((scene.seed, 0))
            rng.integers(1)
            negated.append(replace(request, negative_prompt=motif_caption(scene, "light", rng, "en")))
        stored(maker, negated, checks.short, [with_negative] * 2)
        (one,) = checks.check_negative(scenes, requests, [present] * 2, "en")
        return one.passed

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


@pytest.mark.parametrize("motif", MOTIFS)
@pytest.mark.parametrize("language", ["en", "zh"])
def test_negative_prompts_name_one_motif(motif, language):
    text = motif_caption(replace(RICH, waterfall=True), motif, np.random.default_rng(0), language)
    assert motif in find_attributes(text)
    assert not {"palette", "camera", "layers"} & set(find_attributes(text))


def test_without_a_valid_attribute_only_the_camera_tells_of_guidance(model, tmp_path, palette_classifier):
    maker, variant = make_maker(model, tmp_path / "clips"), make_variant(num_frames=2)
    classifier = SceneClassifier(ATTRIBUTES, valid=()).eval()
    checks = run_checks(maker, classifier, [Scene()], REQUESTS[:1], variant)
    assert (
        "camera follows the prompt" in checks
        and "agreement with the prompt" not in checks
        and "accuracy of motifs" not in checks
    )
