"""`landscape-video generate`: what comes out, and that every option reaches it."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from landscape_video.cli.generate import numbered_outputs
from pipeline_calls import recommend
from pipeline_landscape_video.video_io import probe_video, read_metadata, read_video


def pictures(folder: str) -> np.ndarray:
    return np.stack([np.asarray(Image.open(file)) for file in sorted(Path(folder).iterdir())])


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
    wanted |= {"steps": 2, "guidance_scale": 8.0, "eta": 0.0, "sofp_mode": "quadratic", "flow": "dis", "fps": 16.0}
    wanted |= {"motion_adapter": None, "lora": [], "device": "cpu", "dtype": "float32", "offload": "none"}
    wanted |= {"optimize": True}
    assert {name: metadata[name] for name in wanted} == wanted
    assert metadata["threads"] >= 1
    versioned = {"landscape-video", "torch", "torchvision", "diffusers", "opencv-python", "av"}
    assert versioned <= metadata["versions"].keys()
    assert [path.name for path in Path().iterdir()] == ["mist.mp4"]


def test_the_same_seed_gives_the_same_frames_and_another_gives_others(generate):
    for output, seed in (("a", 3), ("b", 3), ("c", 4), ("d", None)):
        generate("misty mountains", "--output", output, *(() if seed is None else ("--seed", seed)))
    np.testing.assert_array_equal(pictures("a"), pictures("b"))
    assert (pictures("a") != pictures("c")).any()
    assert read_metadata("d")["seed"] not in (3, 4)  # a new one is drawn


def test_the_same_seed_gives_the_same_mp4(generate):
    for output in ("a.mp4", "b.mp4", "c.mp4"):
        generate("misty mountains", "--output", output, "--seed", 3)
    assert len({Path(output).read_bytes() for output in ("a.mp4", "b.mp4", "c.mp4")}) == 1


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
        ["--eta", "1"],
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


def test_flow_chooses_the_estimator_and_the_metadata_name_it(generate, monkeypatch, tmp_path_factory):
    import torch
    from torchvision.models.optical_flow import Raft_Small_Weights, raft_small

    downloads = tmp_path_factory.mktemp("torch")
    monkeypatch.setenv("TORCH_HOME", str(downloads))
    (downloads / "hub" / "checkpoints").mkdir(parents=True)
    weights = downloads / "hub" / "checkpoints" / Raft_Small_Weights.DEFAULT.url.rsplit("/", 1)[-1]
    torch.save(raft_small().state_dict(), weights)  # random, but of the kind
    for output, flow in (("a", ["--flow", "dis"]), ("b", ["--flow", "raft-small"]), ("c", [])):
        result = generate("misty mountains", "--seed", 3, "--output", output, *flow)
        assert result.exit_code == 0, result.stderr
    assert [read_metadata(output)["flow"] for output in "abc"] == ["dis", "raft-small", "raft-small"]
    np.testing.assert_array_equal(pictures("a")[::2], pictures("b")[::2])
    assert (pictures("a")[1::2] != pictures("b")[1::2]).any()
    np.testing.assert_array_equal(pictures("b"), pictures("c"))
    monkeypatch.setenv("TORCH_HOME", str(downloads / "empty"))
    for output, flow in (("d", []), ("e", ["--flow", "raft-small"])):
        result = generate("misty mountains", "--seed", 3, "--output", output, *flow, "--flow-weights", weights)
        assert result.exit_code == 0, result.stderr
        assert (read_metadata(output)["flow"], read_metadata(output)["flow_weights"]) == ("raft-small", str(weights))
        np.testing.assert_array_equal(pictures(output), pictures("b"))
    result = generate("mist", "--output", "f", "--flow", "raft", "--flow-weights", weights)
    assert result.exit_code == 2 and not Path("f").exists()
    assert "must hold the weights of torchvision's raft_large, got tensors that are missing" in result.stderr


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


def test_processes_write_the_same_clips(generate, tmp_path):
    (tmp_path / "views.txt").write_text("mist\nrain\n")
    for output, jobs in (("one", "1"), ("two", "2")):
        arguments = ["--seed", "5", "--no-interpolate", "--output", f"{output}/view.gif", "--jobs", jobs]
        (tmp_path / output).mkdir()
        result = generate("--prompts", tmp_path / "views.txt", *arguments)
        assert result.exit_code == 0, result.output
        assert sorted(line.split(":")[0] for line in result.stdout.splitlines()) == [
            f"{output}/view-01.gif",
            f"{output}/view-02.gif",
        ]
    for name in ("view-01.gif", "view-02.gif"):
        np.testing.assert_array_equal(*(read_video(tmp_path / output / name)[0] for output in ("one", "two")))


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
    assert result.exit_code == 2 and "--motion-adapter must be given" in result.stderr.splitlines()[-1]
    result = generate("mist", "--motion-adapter", models / "wide_adapter", "--output", "b", model="still")
    assert result.exit_code == 2 and "must fit" in result.stderr.splitlines()[-1]
    assert not Path("b").exists()


def test_a_model_by_its_name_on_the_hub(generate, models, monkeypatch, tmp_path_factory):
    """One that was downloaded before: there is no network here."""
    cache = tmp_path_factory.mktemp("hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    for name, folder in (("somebody/landscape", "video"), ("somebody/motion", "adapter"), ("somebody/still", "still")):
        repository = cache / f"models--{name.replace('/', '--')}"
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text("0" * 40)
        shutil.copytree(models / folder, repository / "snapshots" / ("0" * 40))
    result = generate("mist", "--seed", 2, "--model", "somebody/landscape", "--output", "a")
    assert result.exit_code == 0, result.stderr
    assert read_metadata("a")["model"] == "somebody/landscape"
    generate("mist", "--seed", 2, "--output", "b")
    np.testing.assert_array_equal(pictures("a"), pictures("b"))
    result = generate("mist", "--model", "somebody/still", "--motion-adapter", "somebody/motion", "--output", "c")
    assert result.exit_code == 0, result.stderr


def test_the_default_model_is_the_embedded_one(generate, models, monkeypatch):
    monkeypatch.setattr("pipeline_landscape_video.SHANSHUI_TINY", models / "video")
    assert generate("mist", "--output", "a", "--seed", 2, model=None).exit_code == 0
    generate("mist", "--output", "b", "--seed", 2)
    assert read_metadata("a")["model"] == "shanshui-tiny"
    np.testing.assert_array_equal(pictures("a"), pictures("b"))


def test_the_embedded_model_writes_frames_of_twice_the_size_unless_told(generate):
    for decoder, side in (("auto", 256), ("native", 128)):
        result = generate("mist", "--output", decoder, "--decoder", decoder, "--seed", 2, model=None)
        assert result.exit_code == 0 and f"7 frames of {side} x {side}" in result.stdout, result.stderr
        assert pictures(decoder).shape == (7, side, side, 3)
        assert read_metadata(decoder)["decoder"] == decoder and read_metadata(decoder)["height"] == 128


def test_words_that_the_embedded_model_has_never_met_are_named(generate, models, monkeypatch, tmp_path_factory):
    embedded = tmp_path_factory.mktemp("embedded") / "model"
    shutil.copytree(models / "video", embedded)
    (embedded / "words.json").write_text('["mist", "over"]')
    monkeypatch.setattr("pipeline_landscape_video.SHANSHUI_TINY", embedded)
    result = generate("mist over dragons", "--no-interpolate", model=None)
    assert result.exit_code == 0, result.stderr
    assert f"warning: this model was not trained on: dragons; see words.json in {embedded}\n" in result.stderr
    assert "not trained on" not in generate("mist over mist", "--no-interpolate", model=None).stderr


def test_a_model_is_sampled_as_it_recommends_also_with_an_adapter(generate, models, tmp_path_factory):
    generate("mist", "--output", "other", "--seed", 2)
    assert (read_metadata("other")["guidance_scale"], read_metadata("other")["eta"]) == (8.0, 0.0)
    folder = tmp_path_factory.mktemp("recommending")
    for name in ("video", "still"):
        shutil.copytree(models / name, folder / name)
        recommend(folder / name, {"text": {"guidance_scale": 2.0, "eta": 1.0}})
    adapter = ["--model", folder / "still", "--motion-adapter", models / "adapter"]
    for output, arguments in (("pipeline", ["--model", folder / "video"]), ("adapter", adapter)):
        generate("mist", "--output", output, "--seed", 2, *arguments)
        assert (read_metadata(output)["guidance_scale"], read_metadata(output)["eta"]) == (2.0, 1.0)


def test_prompts_over_time_come_from_a_file(generate):
    Path("seasons.txt").write_text("0: snow: white\n\n16: rain\n", encoding="utf-8")
    result = generate("--prompts-over-time", "seasons.txt", "--num-frames", "32", "--output", "long.mp4")
    assert result.exit_code == 0, result.output
    assert "long.mp4: 63 frames" in result.output
    assert read_metadata("long.mp4")["prompt"] == {"0": "snow: white", "16": "rain"}
