"""A clip's file holds its recipe, and a recipe from a file is checked before it is used."""

import numpy as np
import pytest

from landscape_video.generation.recipe import differences, models_to_repeat, read_recipe, same_frames
from landscape_video.generation.settings import ImageModelSettings, ImageToVideoSettings, TextToVideoSettings
from pipeline_landscape_video.video_io import write_video


FRAMES = np.random.default_rng(0).random((3, 16, 16, 3))


def clip_with(path, frames=FRAMES, **metadata):
    write_video(path, frames, 8, metadata)
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp", ""])
def test_a_recipe_is_read_from_every_format(tmp_path, suffix):
    settings = TextToVideoSettings(seed=7, num_frames=8, eta=0.5, interpolate=False)
    clip = clip_with(tmp_path / f"clip{suffix}", prompt="山水", model="shanshui-tiny", **settings.as_metadata())
    recipe = read_recipe(clip)
    assert recipe.prompts == ["山水"] and not recipe.from_image
    assert recipe.models["decoder"] == "native"  # the file is from before there was a choice
    assert recipe.settings.seed == 7 and recipe.settings.eta == 0.5 and not recipe.settings.interpolate


def test_the_decoder_of_a_recipe_is_used_unless_a_run_names_another(tmp_path):
    settings = TextToVideoSettings(seed=7).as_metadata()
    native = read_recipe(clip_with(tmp_path / "old.mp4", prompt="mist", **settings))
    double = read_recipe(clip_with(tmp_path / "new.mp4", prompt="mist", decoder="auto", **settings))
    assert models_to_repeat(native, ImageModelSettings()).decoder == "native"
    assert models_to_repeat(double, ImageModelSettings()).decoder == "auto"
    with pytest.raises(ValueError, match="made with `decoder` auto, got native"):
        models_to_repeat(double, ImageModelSettings(decoder="native"))
    with pytest.raises(ValueError, match="made with `model` shanshui-tiny, got other"):
        models_to_repeat(native, ImageModelSettings(model="other"))


def test_an_animated_clip_keeps_its_stages_and_the_name_of_its_image(tmp_path):
    settings = ImageToVideoSettings(seed=1, fit="pad").as_metadata()
    clip = clip_with(tmp_path / "a.mp4", prompts=["mist", "rain"], picture="p.png", **settings)
    recipe = read_recipe(clip)
    assert recipe.from_image and recipe.prompts == ["mist", "rain"] and recipe.picture == "p.png"
    assert recipe.settings.fit == "pad"
    assert read_recipe(clip_with(tmp_path / "b.mp4", prompts=[None], **settings)).prompts == []


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, "holds no recipe"),
        ({"prompt": "a", "seed": "7"}, "`seed` must be of type int"),
        ({"prompt": "a", "seed": True}, "`seed` must be of type int"),
        ({"prompt": "a", "seed": 7, "num_frames": [1]}, "`num_frames` must be of type int"),
        ({"prompt": "a", "seed": 7, "num_frames": -1}, "`num_frames` must be at least 1"),
        ({"prompt": "a", "seed": 7, "sofp_mode": {"x": 1}}, "sofp_mode"),
        ({"prompt": ["a"], "seed": 7}, "must be a list of texts"),
        ({"prompts": "a", "seed": 7}, "must be a list of texts"),
        ({"prompt": "a", "seed": 7, "interpolation": {}}, "was interpolated"),
    ],
)
def test_files_that_hold_no_usable_recipe_are_refused(tmp_path, metadata, message):
    with pytest.raises(ValueError, match=message):
        read_recipe(clip_with(tmp_path / "clip.mp4", **metadata))


def test_a_file_of_another_kind_is_refused(tmp_path):
    for name in ("a.mp4", "a.gif", "a.webp"):
        (tmp_path / name).write_bytes(b"no clip at all")
        with pytest.raises(ValueError, match="is not a clip"):
            read_recipe(tmp_path / name)


def test_paths_in_a_file_are_never_used(tmp_path):
    clip = clip_with(tmp_path / "a.mp4", prompt="a", seed=1, flow_weights="/etc/passwd", flow="raft")
    assert read_recipe(clip).settings.flow_weights is None


def test_frames_are_compared(tmp_path):
    first, second = clip_with(tmp_path / "a.mp4", a=1), clip_with(tmp_path / "b.mp4", b=2)
    assert same_frames(first, second)
    assert not same_frames(first, clip_with(tmp_path / "c.mp4", FRAMES[::-1]))
    assert not same_frames(first, clip_with(tmp_path / "d.mp4", FRAMES[:2]))


def test_differences_of_the_environment_are_named():
    then = {"device": "cpu", "threads": 1, "versions": {"torch": "2.9.0", "numpy": "2.0"}}
    now = {"device": "cpu", "threads": 2, "versions": {"torch": "2.15.0", "numpy": "2.0"}}
    assert differences(then, now) == ["threads: 1 then, 2 now", "torch: 2.9.0 then, 2.15.0 now"]
    assert differences(then, then) == []
