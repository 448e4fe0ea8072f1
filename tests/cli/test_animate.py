"""`landscape-video animate`: a picture file in, a clip out, and one line for what does not work."""

import json
import shutil
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from pipeline_calls import recommend
from pipeline_landscape_video.video_io import probe_video, read_metadata
from retention_models import build_image_to_video, painting


@pytest.fixture(scope="module")
def moving(tmp_path_factory) -> Path:
    """A folder with a pipeline that has a branch."""
    folder = tmp_path_factory.mktemp("moving")
    build_image_to_video().save_pretrained(folder)
    return folder


@pytest.fixture
def animate(moving, tmp_path, monkeypatch):
    """Run `animate` in a folder with painting.png: 4 frames in 2 steps, unless the arguments differ."""
    from landscape_video.cli.main import app

    monkeypatch.chdir(tmp_path)
    painting(1, (96, 64)).save("painting.png")

    def run(*arguments: object):
        arguments = ["animate", *map(str, arguments)]
        for option, value in (("--num-frames", "4"), ("--steps", "2"), ("--model", moving), ("--device", "cpu")):
            if option not in arguments:
                arguments += [option, str(value)]
        return CliRunner().invoke(app, arguments)

    return run


def frames_in(folder: str) -> np.ndarray:
    return np.stack([np.asarray(Image.open(file)) for file in sorted(Path(folder).iterdir())])


def test_a_painting_becomes_a_clip_that_knows_how_it_was_made(animate):
    result = animate("painting.png", "mist drifting", "--output", "mist.mp4", "--seed", 3)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "mist.mp4: 7 frames of 64 x 64, 16 fps, seed 3\n"
    assert "mist.mp4: 100%" in result.stderr
    assert probe_video("mist.mp4").num_frames == 7
    metadata = read_metadata("mist.mp4")
    wanted = {"picture": "painting.png", "prompts": ["mist drifting"], "seed": 3, "fit": "crop", "flow": "dis"}
    wanted |= {"guidance_scale": 8.0, "image_guidance_scale": 1.5, "retention_scale": 1.0, "num_frames": 4}
    wanted |= {"hold_first_frame": True, "guidance_order": "picture_first", "eta": 0.0}
    assert {name: metadata[name] for name in wanted} == wanted
    assert json.dumps(metadata).count(str(Path.cwd())) == 0


def test_the_words_of_options_are_those_of_the_library():
    from landscape_video.generation.setting_fields import choices
    from landscape_video.generation.settings import ImageToVideoSettings
    from pipeline_landscape_video import SOFP_MODES
    from pipeline_landscape_video.landscape_guidance import GUIDANCE_ORDERS
    from pipeline_landscape_video.landscape_optical_flow import FLOW_ESTIMATORS
    from pipeline_landscape_video.landscape_pictures import FITS

    words = {each.name: choices(each.type) for each in fields(ImageToVideoSettings)}
    assert words["fit"] == FITS and set(words["guidance_order"]) == set(GUIDANCE_ORDERS)
    assert words["sofp_mode"] == SOFP_MODES and words["flow"] == FLOW_ESTIMATORS


def test_a_model_is_sampled_as_it_recommends(animate, moving, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(moving, model)
    recommend(model, {"text": {"guidance_scale": 2.0, "eta": 1.0}, "image": {"guidance_scale": 4.0, "eta": 0.0}})
    animate("painting.png", "mist", "--output", "mist", "--model", model)
    metadata = read_metadata("mist")
    assert (metadata["guidance_scale"], metadata["eta"]) == (4.0, 0.0)  # `generate` draws noise anew


def test_every_option_reaches_the_clip(animate):
    def clip(*arguments):
        name = f"clip{len(list(Path().iterdir()))}"
        result = animate("painting.png", *arguments, "--output", name, "--seed", 3, "--no-interpolate")
        assert result.exit_code == 0, result.stderr
        return frames_in(name)

    plain = clip("mist")
    assert len(plain) == 4
    for arguments in (
        ["rain"],
        [],
        ["mist", "--fit", "pad"],
        ["mist", "--image-guidance-scale", "4"],
        ["mist", "--guidance-order", "text_first"],
        ["mist", "--retention-scale", "0.3"],
        ["mist", "--no-hold-first-frame"],
        ["mist", "--guidance-scale", "2"],
        ["mist", "--eta", "1"],
        ["mist", "--negative-prompt", "boat"],
    ):
        other = clip(*arguments)
        assert other.shape == plain.shape and (other != plain).any(), arguments
    stages = clip("mist", "rain")
    assert len(stages) == 8
    np.testing.assert_array_equal(stages[:4], plain)
    assert len(clip("mist", "rain", "--drop-duplicate-frame")) == 7
    assert (clip("mist", "rain", "--match-stage-colors") != stages).any()
    Path("acts.txt").write_text("mist\nrain\n")
    np.testing.assert_array_equal(clip("--prompts", "acts.txt"), stages)
    assert len(clip("mist", "--stages", "3")) == 12


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "CMYK", "P", "I;16", "turned"])
def test_pictures_as_people_have_them(animate, mode):
    picture, options = painting(2, (80, 64)), {}
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
    elif mode == "turned":
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = 6
    else:
        picture = picture.convert(mode)
    name = "picture.tif" if mode == "CMYK" else "picture.png"
    picture.save(name, **options)
    result = animate(name, "mist", "--output", "clip", "--steps", "1", "--no-interpolate")
    assert result.exit_code == 0, result.stderr
    assert len(frames_in("clip")) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.png", "mist"], "none.png: no such file"),
        (["folder", "mist"], "folder: not a usable image: "),
        (["text.png", "mist"], "text.png: not a usable image: cannot identify"),
        (["half.png", "mist"], "half.png: "),
        (["tiny.png", "mist"], "tiny.png: not a usable image: the image must have at least 8 x 8 pixels, got 4 x 64"),
        (["float.tif", "mist"], "float.tif: not a usable image: the image must be RGB, gray or CMYK, got mode F"),
        (["scroll.png", "mist", "--fit", "pad"], "1600 x 40 pixels is too long to be shown whole in 64 x 64"),
        (["painting.png", " "], "a prompt must not be empty"),
        (["painting.png", "mist", "--prompts", "text.png"], "not both"),
        (["painting.png", "mist", "rain", "--stages", "3"], "--stages must be 2, one for each prompt, got 3."),
        (["painting.png", "--stages", "2"], "--stages needs a prompt, got 2 stages and no prompt."),
        (
            ["painting.png", "mist", "--stages", "2", "--retention-scale", "0"],
            "a stage would not see the end of the previous one",
        ),
        (
            ["painting.png", "mist", "--image-guidance-scale", "nan"],
            "--image-guidance-scale must be a finite",
        ),
        (["painting.png", "mist", "--fit", "stretch"], "--fit must be one of crop, pad, got 'stretch'."),
        (["painting.png", "mist", "--height", "100"], "--height must be a multiple of 8, got 100."),
        (["painting.png", "mist", "--output", "mist.avi"], "got '.avi'"),
        (["painting.png", "mist", "--image-retention", "./none"], "--image-retention ./none: no such file or folder"),
        (
            ["painting.png", "mist", "--image-retention", "folder"],
            "folder: does not load: Error no file named",
        ),
        (["painting.png", "mist", "--image-retention", "other"], "cross_attention_dim must be 16, got 32"),
        (["painting.png", "mist", "--image-retention", "damaged/image_retention"], "--image-retention damaged/image_"),
        (["painting.png", "mist", "--model", "damaged"], "--model damaged: "),
        (["painting.png", "mist", "--image-retention", "moving/motion_adapter"], "of the class MotionAdapter, not"),
        (["painting.png", "mist", "--motion-adapter", "moving/image_retention"], "of the class ImageRetention, not"),
        (["painting.png", "mist", "--image-retention", "part"], "conv_in.weight is missing in its weights"),
        (
            ["painting.png", "mist", "--model", "shanshui-tiny"],
            "shanshui-tiny: does not load: it has no image_retention/",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_input_is_one_line_and_writes_nothing(animate, moving, monkeypatch, tmp_path, arguments, message):
    if "shanshui-tiny" in arguments:  # without the branch that it may have by now
        (tmp_path / "bare").mkdir()
        (tmp_path / "bare" / "model_index.json").write_text("{}")
        monkeypatch.setattr("pipeline_landscape_video.SHANSHUI_TINY", tmp_path / "bare")
    Path("folder").mkdir()
    Path("text.png").write_text("a painting")
    Path("half.png").write_bytes(Path("painting.png").read_bytes()[:2000])
    painting(0, (4, 64)).save("tiny.png")
    painting(0, (1600, 40)).save("scroll.png")
    Image.new("F", (16, 16)).save("float.tif")
    if "other" in arguments:
        from pipeline_landscape_video import ImageRetention

        branch = ImageRetention.from_pretrained(moving / "image_retention")
        ImageRetention.from_config(dict(branch.config) | {"cross_attention_dim": 32}).save_pretrained("other")
    if "part" in arguments:
        weights = Path(shutil.copytree(moving / "image_retention", "part"), "diffusion_pytorch_model.safetensors")
        tensors = load_file(weights)
        save_file({name: tensors[name] for name in tensors if "conv_in.weight" not in name}, weights)
    if any(argument.startswith("moving/") for argument in arguments):  # the folder beside the one that is meant
        shutil.copytree(moving, "moving")
    if any("damaged" in argument for argument in arguments):
        shutil.copytree(moving, "damaged")
        weights = Path("damaged/image_retention/diffusion_pytorch_model.safetensors")
        weights.write_bytes(weights.read_bytes()[:-100])
    before = sorted(path.name for path in Path().iterdir())
    result = animate(*arguments)
    assert result.exit_code == 2, result.stderr
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("landscape-video: ") and message in last
    assert "Traceback" not in result.stderr
    assert sorted(path.name for path in Path().iterdir()) == before


def test_a_picture_that_would_fill_the_memory_is_refused(animate, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow refuses what has more than twice as many
    result = animate("painting.png", "mist")
    assert result.exit_code == 2
    assert result.stderr.strip().splitlines()[-1].startswith("landscape-video: painting.png: not a usable image: ")
    assert "exceeds limit" in result.stderr
    assert not list(Path().glob("*.mp4"))
