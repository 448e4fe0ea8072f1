"""Pull from a stand-in for the Hub with `landscape-video pull`: the folder works offline, errors are one line."""

import re
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from hub_runs import files_of, frames_of, run, run_elsewhere
from motion_adapter.export import export_adapter, export_pipeline


OFFLINE = """
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import save_file

try:
    DiffusionPipeline.from_pretrained("me/mountains", trust_remote_code=True)
except OSError:
    pass
else:
    raise AssertionError("there must be no network and no cache here")
pipe = DiffusionPipeline.from_pretrained("mountains", trust_remote_code=True)
generator = torch.Generator().manual_seed(5)
frames = pipe(
    "misty mountains", num_frames=4, num_inference_steps=2, generator=generator, output_type="pt", flow_estimator="dis"
).frames
save_file({"frames": frames.contiguous()}, "frames.safetensors")
"""


@pytest.fixture
def adapter(tiny_components, tmp_path) -> dict[str, bytes]:
    """The files of an adapter's repository."""
    return files_of(export_adapter(tiny_components()["motion_adapter"], tmp_path / "adapter"))


def test_a_pulled_pipeline_generates_the_same_frames_offline(hub, tiny_pipeline, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pipe = tiny_pipeline()
    repo = hub.create("me/mountains", files_of(export_pipeline(pipe, "export")))
    result = run("pull", "me/mountains", "--to", "mountains")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"{tmp_path / 'mountains'}\n"
    assert f"commit {repo.head}" in result.stderr
    assert files_of(Path("mountains")) == repo.files()
    run_elsewhere(hub, tmp_path, OFFLINE, HF_HUB_OFFLINE="1")
    assert torch.equal(load_file("frames.safetensors")["frames"], frames_of(pipe))


def test_any_revision_and_the_cache(hub, adapter):
    repo = hub.create("me/motion", adapter)
    old = repo.head
    repo.commit("more", adapter | {"notes.txt": b""})
    newest, older = run("pull", "me/motion"), run("pull", "me/motion", "--revision", old)
    assert newest.exit_code == older.exit_code == 0, newest.stderr + older.stderr
    assert (Path(newest.stdout.strip()) / "notes.txt").is_file()
    assert files_of(Path(older.stdout.strip())) == repo.files(old)
    assert older.stdout.startswith(constants.HF_HUB_CACHE)


def test_another_model_is_fetched_as_it_is(hub, tmp_path):
    files = {"model_index.json": b"{}", "unet/model.safetensors": b"whatever"}
    hub.create("someone/stills", files)
    result = run("pull", "someone/stills", "--to", tmp_path / "stills")
    assert result.exit_code == 0, result.stderr
    assert files.items() <= files_of(tmp_path / "stills").items()


def test_weights_that_are_not_whole_are_refused_and_no_folder_is_left(hub, adapter, tmp_path):
    save_file({"x": torch.tensor([torch.nan])}, tmp_path / "x.safetensors")
    broken = {"diffusion_pytorch_model.safetensors": (tmp_path / "x.safetensors").read_bytes()}
    hub.create("me/motion", adapter | broken)
    result = run("pull", "me/motion", "--to", tmp_path / "motion")
    assert result.exit_code == 2
    assert re.search(r"1 unknown: x; \d+ missing: ", result.stderr)
    assert not (tmp_path / "motion").exists()


@pytest.mark.parametrize(
    ("name", "token", "arguments", "message"),
    [
        ("me/none", "hf_me", [], "me/none is not on the Hub, or is private: if so, log in as a user who may"),
        ("you/secret", "hf_me", [], "you/secret is not on the Hub, or is private: if so, log in as a user who may"),
        ("you/secret", "", [], "you/secret is not on the Hub, or is private: if so, log in as a user who may read"),
        ("you/gated", "hf_me", [], "you/gated is gated: accept its terms on "),
        ("you/gated", "", [], "you/gated is gated: accept its terms on "),
        ("you/open", "hf_me", ["--revision", "v9"], "you/open has no revision v9."),
        ("open", "hf_me", [], "'open' is not a name on the Hub: it must be of the form USER/NAME."),
    ],
)
def test_what_may_not_be_read_is_one_line(hub, monkeypatch, tmp_path, name, token, arguments, message):
    hub.create("you/secret", private=True)
    hub.create("you/gated", gated=True)
    hub.create("you/open")
    monkeypatch.setenv("HF_TOKEN", token)
    result = run("pull", name, "--to", tmp_path / "folder", *arguments)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith(f"landscape-video: {message}")
    assert "Traceback" not in result.output
    assert not (tmp_path / "folder").exists()


def test_offline_and_out_of_reach_are_one_line(hub, monkeypatch, tmp_path):
    hub.create("you/open")
    with monkeypatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        result = run("pull", "you/open")
    assert result.exit_code == 1
    assert result.stderr == ("landscape-video: you/open: HF_HUB_OFFLINE is set; unset it once to download.\n")
    hub.refuse = lambda method, path: "cut"
    result = run("pull", "you/open")
    assert result.exit_code == 1
    assert re.match(rf"landscape-video: you/open: the Hub \({hub.url}\) does not answer: .+\n$", result.stderr)


def test_a_folder_with_files_is_kept(hub, tmp_path):
    hub.create("you/open")
    (tmp_path / "notes.txt").write_text("mine")
    result = run("pull", "you/open", "--to", tmp_path)
    assert result.exit_code == 2
    assert "exists already" in result.stderr and not hub.requests


@pytest.mark.parametrize("option", ["--model", "--motion-adapter"])
def test_generate_says_the_same_about_a_name_on_the_hub(hub, tiny_pipeline, tmp_path, option):
    arguments = ["generate", "mist", "--device", "cpu", "--output", tmp_path / "mist.mp4"]
    result = run(*arguments, option, "me/none")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == (
        f"landscape-video: {option} me/none: me/none is not on the Hub, or is private: if so, log in as a user who "
        "may read it (`hf auth login`)."
    )
