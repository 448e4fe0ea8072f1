"""`landscape-video`: what its help promises, what `generate` writes, and how it refuses."""

import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.main import get_command
from typer.testing import CliRunner, Result

from landscape_cli.generate import numbered_outputs
from landscape_cli.main import app
from pipeline_landscape_video.video_io import probe_video, read_metadata


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Path:
    """A folder of saved models: video/ (a pipeline of ours), still/ (Stable Diffusion's layout), adapter/, lora/."""
    from diffusers import StableDiffusionPipeline
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import LoraConfig, get_peft_model_state_dict

    from pipeline_landscape_video import LandscapeVideoPipeline
    from tiny_models import build_components, build_motion_adapter

    folder = tmp_path_factory.mktemp("models")
    components = build_components()
    LandscapeVideoPipeline(**components).save_pretrained(folder / "video")
    build_motion_adapter().save_pretrained(folder / "adapter")
    build_motion_adapter(block_out_channels=(16, 16)).save_pretrained(folder / "wide_adapter")
    still = {name: component for name, component in components.items() if name != "motion_adapter"}
    StableDiffusionPipeline(
        **still, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    ).save_pretrained(folder / "still")
    unet = LandscapeVideoPipeline(**build_components()).unet
    unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(unet))
    LandscapeVideoPipeline.save_lora_weights(folder / "lora", unet_lora_layers=layers)
    return folder


@pytest.fixture
def generate(models, tmp_path, monkeypatch):
    """Run `generate` in an empty folder: 4 frames in 2 steps, of the saved pipeline, unless the arguments differ."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, model: str | None = "video") -> Result:
        arguments = ["generate", *map(str, arguments)]
        defaults = {"--num-frames": "4", "--steps": "2", "--model": model and str(models / model), "--device": "cpu"}
        for option, value in defaults.items():
            if option not in arguments and value is not None:
                arguments += [option, value]
        return CliRunner().invoke(app, arguments)

    return run


def pictures(folder: str) -> np.ndarray:
    return np.stack([np.asarray(Image.open(file)) for file in sorted(Path(folder).iterdir())])


# What comes out


def test_a_clip_with_everything_that_is_needed_to_make_it_again(generate):
    result = generate("misty mountains", "--output", "mist.mp4")
    assert result.exit_code == 0, result.stderr
    metadata = read_metadata("mist.mp4")
    seed = metadata["seed"]
    assert result.stdout == f"mist.mp4: 7 frames of 64 x 64, 16 fps, seed {seed}\n"
    assert re.search(rf"^seed {seed}, cpu, float32$", result.stderr, re.MULTILINE)  # before the painting as well
    assert "mist.mp4: 100%" in result.stderr  # the progress bar
    info = probe_video("mist.mp4")
    assert (info.num_frames, info.width, info.height, info.fps) == (7, 64, 64, 16)
    wanted = {"prompt": "misty mountains", "negative_prompt": None, "num_frames": 4, "height": 64, "width": 64}
    wanted |= {"steps": 2, "guidance_scale": 8.0, "sofp_mode": "quadratic", "flow": "dis", "fps": 16.0}
    wanted |= {"motion_adapter": None, "lora": [], "device": "cpu", "dtype": "float32", "offload": "none"}
    assert {name: metadata[name] for name in wanted} == wanted
    assert metadata["threads"] >= 1
    assert {"landscape-video", "torch", "torchvision", "diffusers", "opencv-python"} <= metadata["versions"].keys()
    assert [path.name for path in Path().iterdir()] == ["mist.mp4"]


def test_the_same_seed_gives_the_same_frames_and_another_gives_others(generate):
    for output, seed in (("a", 3), ("b", 3), ("c", 4), ("d", None)):
        generate("misty mountains", "--output", output, *(() if seed is None else ("--seed", seed)))
    np.testing.assert_array_equal(pictures("a"), pictures("b"))
    assert (pictures("a") != pictures("c")).any()
    assert read_metadata("d")["seed"] not in (3, 4)  # drawn anew


def test_without_seed_every_run_draws_another(generate):
    seeds = set()
    for output in ("a", "b"):
        generate("mist", "--output", output, "--no-interpolate")
        seeds.add(read_metadata(output)["seed"])
    assert len(seeds) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["--negative-prompt", "rain"],
        ["--guidance-scale", "2"],
        ["--steps", "3"],
        ["--sofp-mode", "linear"],
        ["--dtype", "bfloat16"],
        ["--lora", "lora"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_every_flag_changes_the_frames(generate, models, arguments):
    arguments = [str(models / "lora") if argument == "lora" else argument for argument in arguments]
    generate("misty mountains", "--seed", 3, "--output", "a")
    result = generate("misty mountains", "--seed", 3, "--output", "b", *arguments)
    assert result.exit_code == 0, result.stderr
    assert pictures("a").shape == pictures("b").shape
    assert (pictures("a") != pictures("b")).any()
    name, value = arguments[0].removeprefix("--").replace("-", "_"), read_metadata("b")
    assert str(value[name] if name != "lora" else value[name][0]).startswith(arguments[1])


def test_sizes_and_rates(generate):
    generate("mist", "--output", "a.mp4", "--no-interpolate", "--height", 48, "--width", 80, "--num-frames", 3)
    info = probe_video("a.mp4")
    assert (info.num_frames, info.height, info.width, info.fps) == (3, 48, 80, 8)
    metadata = read_metadata("a.mp4")
    assert (metadata["sofp_mode"], metadata["flow"]) == (None, None)
    generate("mist", "--output", "b.mp4", "--fps", 12.5)
    assert float(probe_video("b.mp4").fps) == 12.5
    # Interpolation doubles the rate and keeps what was sampled.
    generate("mist", "--seed", 1, "--output", "sampled", "--no-interpolate")
    generate("mist", "--seed", 1, "--output", "doubled")
    np.testing.assert_array_equal(pictures("doubled")[::2], pictures("sampled"))


@pytest.mark.parametrize("output", ["mist.gif", "mist.webp", "mist"])
def test_other_formats(generate, output):
    result = generate("mist", "--output", output, "--seed", 5)
    assert result.exit_code == 0, result.stderr
    assert read_metadata(output)["seed"] == 5


def test_prompts_of_a_file_get_numbered_names_and_each_is_as_if_alone(generate):
    Path("views.txt").write_bytes("\ufeffmisty mountains\r\n\r\n  薄霧 over the river \r\n".encode())
    result = generate("--prompts", "views.txt", "--output", "view", "--seed", 7)
    assert result.exit_code == 0, result.stderr
    assert [line.split(":")[0] for line in result.stdout.splitlines()] == ["view-01", "view-02"]
    assert [read_metadata(name)["prompt"] for name in ("view-01", "view-02")] == [
        "misty mountains",
        "薄霧 over the river",
    ]
    generate("薄霧 over the river", "--output", "alone", "--seed", 7)
    np.testing.assert_array_equal(pictures("view-02"), pictures("alone"))


def test_several_prompts_on_the_command_line(generate):
    result = generate("misty mountains", "a boat", "--output", "view.gif", "--no-interpolate")
    assert result.exit_code == 0, result.stderr
    assert sorted(path.name for path in Path().iterdir()) == ["view-01.gif", "view-02.gif"]
    assert numbered_outputs(Path("clips/a.mp4"), 100)[8] == Path("clips/a-009.mp4")


def test_an_image_model_with_a_motion_adapter(generate, models):
    result = generate("mist", "--motion-adapter", models / "adapter", "--output", "a", model="still")
    assert result.exit_code == 0, result.stderr
    assert len(pictures("a")) == 7
    result = generate("mist", "--output", "b", model="still")
    assert result.exit_code == 2 and "motion_adapter" in result.stderr.splitlines()[-1]
    result = generate("mist", "--motion-adapter", models / "wide_adapter", "--output", "b", model="still")
    assert result.exit_code == 2 and "does not fit" in result.stderr.splitlines()[-1]
    assert not Path("b").exists()


def test_the_default_model_is_the_embedded_one(generate, models, monkeypatch):
    monkeypatch.setattr("pipeline_landscape_video.SHANSHUI_TINY", models / "video")
    assert generate("mist", "--output", "a", "--seed", 2, model=None).exit_code == 0
    generate("mist", "--output", "b", "--seed", 2)
    assert read_metadata("a")["model"] == "shanshui-tiny"
    np.testing.assert_array_equal(pictures("a"), pictures("b"))


# Refusals


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "there is no prompt"),
        (["  "], "a prompt is empty"),
        (["mist", "--prompts", "good.txt"], "not both"),
        (["--prompts", "none.txt"], "none.txt: there is no such file"),
        (["--prompts", "empty.txt"], "empty.txt: holds no prompt"),
        (["--prompts", "latin.txt"], "latin.txt: is not UTF-8"),
        (["--prompts", "binary.txt"], "NUL byte"),
        (["mist", "--output", "mist.avi"], "cannot write '.avi'"),
        (["mist", "--output", "none/mist.mp4"], "there is no folder none"),
        (["mist", "--output", "full"], "full: exists"),
        (["mist", "--output", "mist.gif", "--fps", "60"], "at most 50 frames per second"),
        (["mist", "--fps", "0"], "--fps"),
        (["mist", "--fps", "nan"], "--fps"),
        (["mist", "--guidance-scale", "inf"], "--guidance-scale"),
        (["mist", "--seed", "-1"], "--seed"),
        (["mist", "--seed", "99999999999999999999"], "--seed"),
        (["mist", "--seed", "seven"], "--seed"),
        (["mist", "--num-frames", "0"], "--num-frames"),
        (["mist", "--num-frames", "33"], "at most 32"),
        (["mist", "--steps", "0"], "--steps"),
        (["mist", "--steps", "1000"], "--steps is 1000"),
        (["mist", "--steps", "1001"], "1001"),
        (["mist", "--height", "100"], "--height is 100, but must be a multiple of 8"),
        (["mist", "--width", "800000", "--height", "800000"], "this machine has"),
        (["mist", "--sofp-mode", "cubic"], "--sofp-mode"),
        (["mist", "--flow", "farneback"], "--flow"),
        (["mist", "--model", "./none"], "--model ./none: there is no such folder"),
        (["mist", "--model", "full"], "full: holds no model_index.json"),
        (["mist", "--model", "nobody/no-such-model"], "nobody/no-such-model"),
        (["mist", "--motion-adapter", "./none"], "--motion-adapter ./none: there is no such folder"),
        (["mist", "--motion-adapter", "full"], "full: holds no config.json"),
        (["mist", "--lora", "./none.safetensors"], "--lora ./none.safetensors: there is no such file"),
        (["mist", "--lora", "broken.safetensors"], "--lora broken.safetensors: does not load"),
        (["mist", "--device", "abacus"], "--device abacus"),
        (["mist", "--device", "cuda:99"], "--device cuda:99"),
        (["mist", "--offload", "model"], "--offload model: needs a GPU"),
        (["mist", "--interpolat"], "--interpolat"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_input_is_one_line_and_writes_nothing(generate, arguments, message):
    Path("full").mkdir()
    Path("full/thesis.txt").write_text("years of work")
    Path("good.txt").write_text("mist")
    Path("empty.txt").write_text("\n\n")
    Path("latin.txt").write_bytes("la for\xeat".encode("latin-1"))
    Path("binary.txt").write_bytes(b"mist\0rain")
    Path("broken.safetensors").write_bytes(b"no weights")
    before = sorted(Path().rglob("*"))
    result = generate(*arguments)
    assert result.exit_code == 2, result.output
    errors = [line for line in result.stderr.splitlines() if line.startswith("landscape-video: ")]
    assert len(errors) == 1 and message in errors[0], result.stderr
    assert result.stderr.rstrip().endswith(errors[0]) and result.stdout == ""
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize("file", ["unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"])
def test_a_model_with_a_broken_file_is_one_line(generate, models, tmp_path_factory, file):
    broken = tmp_path_factory.mktemp("broken") / "video"
    shutil.copytree(models / "video", broken)
    (broken / file).write_bytes((broken / file).read_bytes()[:1000])
    result = generate("mist", "--model", broken)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith(f"landscape-video: --model {broken}: does not load: ")
    assert list(Path().iterdir()) == []


def test_weights_of_something_else_are_no_lora(generate, models):
    result = generate("mist", "--lora", models / "adapter" / "diffusion_pytorch_model.safetensors")
    assert result.exit_code == 2
    assert "--lora" in result.stderr.splitlines()[-1] and "does not load" in result.stderr.splitlines()[-1]
    assert list(Path().iterdir()) == []


def test_too_little_memory_of_a_gpu_is_one_line_that_helps(generate, monkeypatch):
    import torch

    def full(name: str) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr("landscape_cli.generate.pick_device", full)
    result = generate("mist")
    assert result.exit_code == 1 and "--offload model" in result.stderr.splitlines()[-1]


def test_raft_without_weights_or_network_says_what_to_do(generate, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody listens there
    result = generate("mist", "--flow", "raft")
    assert result.exit_code == 2
    assert "dis" in result.stderr.splitlines()[-1] and "Traceback" not in result.stderr
    assert not Path("landscape.mp4").exists()


def test_a_model_that_computes_nan_is_no_clip(generate, models):
    import torch

    from pipeline_landscape_video import LandscapeVideoPipeline
    from tiny_models import build_components

    components = build_components()
    torch.nn.init.constant_(components["vae"].decoder.conv_out.bias, torch.nan)
    LandscapeVideoPipeline(**components).save_pretrained(models / "nan")
    result = generate("mist", "--no-interpolate", model="nan")
    assert result.exit_code == 1
    assert "NaN" in result.stderr.splitlines()[-1] and not list(Path().iterdir())


def test_a_full_disk_is_one_line_and_leaves_nothing(generate):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        result = generate("mist", "--output", "mist.gif")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("landscape-video: ")
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_stopped_leaves_nothing(models, tmp_path, number, code):
    command = [sys.executable, "-m", "landscape_cli", "generate", "mist", "--device", "cpu", "--steps", "900"]
    process = subprocess.Popen(
        [*command, "--num-frames", "8", "--model", str(models / "video")],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background jobs ignore Ctrl-C
    )
    try:
        os.set_blocking(process.stderr.fileno(), False)
        seen, deadline = b"", time.monotonic() + 300
        while b"/900" not in seen and process.poll() is None and time.monotonic() < deadline:
            seen += process.stderr.read() or b""
            time.sleep(0.05)
        assert b"/900" in seen, seen
        process.send_signal(number)
        os.set_blocking(process.stderr.fileno(), True)
        rest = process.stderr.read()
        assert process.wait(timeout=100) == code, rest[-500:]
    finally:
        process.kill()
    assert b"Traceback" not in rest
    if number == signal.SIGINT:
        assert rest.rstrip().endswith(b"landscape-video: interrupted.")
    assert list(tmp_path.iterdir()) == []


# Help


def test_help_comes_before_anything_heavy_is_imported():
    for arguments in (["--help"], ["generate", "--help"], ["interpolate", "--help"], ["--version"]):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        result = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "landscape_cli", *arguments], capture_output=True, text=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert result.returncode == 0 and result.stdout
        imported = set(re.findall(r"\|\s+([\w.]+)$", result.stderr, re.MULTILINE))
        assert "typer" in imported
        assert not imported & {"torch", "numpy", "diffusers", "transformers", "cv2", "av", "scenedetect", "PIL"}
        # Of the processor, so that a busy machine fails no test.
        assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2


def test_help_teaches_every_flag_with_its_default():
    result = CliRunner().invoke(app, ["generate", "--help"], env={"COLUMNS": "200"})
    flags = "--prompts --negative-prompt --output --seed --num-frames --height --width --steps --guidance-scale"
    flags += " --no-interpolate --sofp-mode --flow --fps --model --motion-adapter --lora --device --dtype --offload"
    for flag in flags.split():
        assert flag in result.stdout
    for default in ("landscape.mp4", "16", "25", "8.0", "quadratic", "shanshui-tiny", "auto", "none"):
        assert f"[default: {default}]" in result.stdout
    for choice in ("raft|raft-small|dis", "quadratic|projection|linear", "float16"):
        assert choice in result.stdout


@pytest.mark.parametrize("name", ["generate", "interpolate"])
def test_the_examples_of_the_help_are_commands_that_exist(name):
    command = get_command(app).commands[name]
    text = re.sub(r"\n\s+--", " --", command.help)  # an example may go on in the next line
    examples = re.findall(r"^\s*\$ (.+)$", text, re.MULTILINE)
    assert len(examples) >= 2
    for example in examples:
        program, subcommand, *arguments = shlex.split(example)
        assert (program, subcommand) == ("landscape-video", name)
        command.make_context(name, arguments)  # raises for what it does not know


def test_version_and_unknown_commands():
    from importlib.metadata import version

    assert CliRunner().invoke(app, ["--version"]).stdout == f"landscape-video {version('landscape-video')}\n"
    result = CliRunner().invoke(app, ["paint", "mist"])
    assert result.exit_code == 2 and result.stderr == "landscape-video: No such command 'paint'.\n"
    result = CliRunner().invoke(app, [])
    assert "generate" in result.output and "interpolate" in result.output
