"""Push to a stand-in for the Hub with `landscape-video push`: what arrives, how it loads, and how it fails."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from safetensors.torch import load, load_file, save_file

from hub_runs import frames_of, run, run_elsewhere
from motion_adapter.code_files import code_files
from motion_adapter.export import export_pipeline
from pipeline_landscape_video import LandscapeImageToVideoPipeline, LandscapeVideoPipeline
from retention_models import build_image_to_video, painting


CODE = {file.name for file in code_files()}
IMAGE_TO_VIDEO_CODE = {file.name for file in code_files(image_to_video=True)}
LICENSE = ("--license", "apache-2.0")

FRAMES = """
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import save_file

pipe = DiffusionPipeline.from_pretrained("me/mountains", custom_pipeline="me/mountains", trust_remote_code=True)
assert type(pipe).__module__.startswith("diffusers_modules."), type(pipe)
pipe.set_progress_bar_config(disable=True)
generator = torch.Generator().manual_seed(5)
frames = pipe(
    "misty mountains", num_frames=4, num_inference_steps=2, generator=generator, output_type="pt", flow_estimator="dis"
).frames
save_file({"frames": frames.contiguous()}, "frames.safetensors")
"""


def code_block(card: str) -> str:
    (block,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    return block


@pytest.fixture
def pipeline_folder(tiny_pipeline, tmp_path) -> Path:
    return export_pipeline(tiny_pipeline(), tmp_path / "pipeline", include_code=False)


@pytest.fixture
def adapter_folder(tiny_components, tmp_path) -> Path:
    tiny_components()["motion_adapter"].save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


@pytest.fixture
def base(hub, tiny_components, tmp_path) -> str:
    """A base model on the Hub, in Stable Diffusion's layout."""
    from diffusers import StableDiffusionPipeline

    still = {name: part for name, part in tiny_components().items() if name != "motion_adapter"}
    extra = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    StableDiffusionPipeline(**still, **extra).save_pretrained(tmp_path / "base")
    folder = tmp_path / "base"
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    hub.create("someone/stills", files)
    return "someone/stills"


# What arrives


def test_a_pipeline_is_created_pushed_and_loaded_by_its_name(hub, pipeline_folder, tiny_pipeline, tmp_path):
    result = run("push", pipeline_folder, "me/mountains", *LICENSE)
    assert result.exit_code == 0, result.stderr
    repo = hub.repos["me/mountains"]
    assert [message for _, message, _ in repo.commits] == ["initial commit", "Add pipeline"]
    top = {name for name in repo.files() if "/" not in name}
    assert top == CODE | {"README.md", "model_index.json", ".gitattributes"}
    card = repo.files()["README.md"].decode()
    assert "settings of this pipeline are `num_inference_steps` 25, `guidance_scale` 8, `eta` 0." in card
    run_elsewhere(hub, tmp_path, FRAMES)
    assert torch.equal(load_file(tmp_path / "frames.safetensors")["frames"], frames_of(tiny_pipeline()))
    assert "hf_me" not in result.output


def test_the_cards_lines_run_as_they_stand_and_the_printed_ones_load_that_commit(hub, pipeline_folder, tmp_path):
    result = run("push", pipeline_folder, "me/mountains", *LICENSE)
    assert result.exit_code == 0, result.stderr
    commit = hub.repos["me/mountains"].head
    assert f"me/mountains is at commit {commit}." in result.stdout
    printed = result.stdout.split("\n\n", 1)[1]
    assert printed.count(commit) == 2  # revision and custom_revision
    run_elsewhere(hub, tmp_path, code_block(hub.repos["me/mountains"].files()["README.md"].decode()))
    with Image.open(tmp_path / "landscape.gif") as clip:
        assert (clip.n_frames, clip.size) == (31, (64, 64))
    newer = dict(hub.repos["me/mountains"].files())
    hub.repos["me/mountains"].commit("break it", newer | {"pipeline.py": b"raise SystemExit('newer code ran')"})
    run_elsewhere(hub, tmp_path, printed.split("prompt = ")[0])  # without generating a second time


def test_an_adapter_goes_with_its_code_and_runs_on_its_base_model(hub, base, adapter_folder, tmp_path):
    result = run("push", adapter_folder, "me/motion", *LICENSE, "--base-model", base)
    assert result.exit_code == 0, result.stderr
    files = hub.repos["me/motion"].files()
    weights = {"config.json", "diffusion_pytorch_model.safetensors"}
    assert set(files) == CODE | weights | {"README.md", ".gitattributes"}
    pushed = load(files["diffusion_pytorch_model.safetensors"])
    given = load_file(adapter_folder / "diffusion_pytorch_model.safetensors")
    assert pushed.keys() == given.keys() and all(torch.equal(pushed[name], given[name]) for name in given)
    card = ModelCard(files["README.md"].decode())
    assert (card.data.base_model, card.data.get("base_model_relation")) == (base, "adapter")
    run_elsewhere(hub, tmp_path, code_block(str(card)))
    with Image.open(tmp_path / "landscape.gif") as clip:
        assert clip.n_frames == 31


def test_half_precision_is_what_the_fresh_process_was_compared_in(hub, base, adapter_folder):
    terms = ("--license", "other", "--license-name", "my-terms", "--license-link", "https://example.org/terms")
    result = run("push", adapter_folder, "me/half", *terms, "--base-model", base, "--dtype", "float16", "--private")
    assert result.exit_code == 0, result.stderr
    files = hub.repos["me/half"].files()
    weights = load(files["diffusion_pytorch_model.safetensors"])
    assert {weight.dtype for weight in weights.values()} == {torch.float16}
    assert hub.repos["me/half"].private
    card = ModelCard(files["README.md"].decode()).data
    assert (card.license, card.license_name, card.license_link) == ("other", "my-terms", "https://example.org/terms")


# What is refused before anything is sent


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing", "me/new", *LICENSE], "nothing: no such folder."),
        (["empty", "me/new", *LICENSE], "empty: holds neither a pipeline nor a motion adapter."),
        (["my-branch", "me/new", *LICENSE], "my-branch: holds an image retention branch, which works only as part"),
        (["adapter", "me/new", *LICENSE], "adapter: the base model of this adapter is unknown; set --base-model."),
        (
            ["adapter", "me/new", *LICENSE, "--base-model", "./empty"],
            "--base-model must be a name on the Hub, got the",
        ),
        (["adapter", "me/new", *LICENSE, "--base-model", "a/missing"], "a/missing is not on the Hub, or is private"),
        (["adapter", "me/new", "--license", "gpl-4.0"], "--license must be one that the Hub knows, got 'gpl-4.0'"),
        (["adapter", "me/new", "--license", "other"], "--license other needs a name: set --license-name."),
        (["adapter", "new", *LICENSE], "'new' is not a name on the Hub"),
    ],
)
def test_wrong_arguments_end_with_one_line(hub, adapter_folder, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    shutil.copytree(adapter_folder, "my-branch/motion_adapter")  # as `train_image_retention.py` leaves it
    Path("my-branch/image_retention").mkdir()
    Path("my-branch/image_retention/config.json").write_text("{}")
    result = run("push", *arguments)
    assert result.exit_code == 2
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"landscape-video: {message}")
    assert not hub.repos
    assert "Traceback" not in result.stderr


def test_a_broken_adapter_is_not_pushed(hub, base, adapter_folder):
    weights = load_file(adapter_folder / "diffusion_pytorch_model.safetensors")
    name = next(iter(weights))
    weights[name][0] = torch.nan
    save_file(weights, adapter_folder / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    result = run("push", adapter_folder, "me/motion", *LICENSE, "--base-model", base)
    assert result.exit_code == 2
    assert re.search(rf"not finite in {re.escape(name)}", result.stderr)
    assert set(hub.repos) == {base}


# An image-to-video pipeline

WITH_AN_IMAGE = """
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from safetensors.torch import save_file

frames = {}
for custom_pipeline in (None, "pipeline_image_to_video"):
    pipe = DiffusionPipeline.from_pretrained("me/moving", custom_pipeline=custom_pipeline, trust_remote_code=True)
    assert type(pipe).__module__.startswith("diffusers_modules."), type(pipe)
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(5)
    frames[str(custom_pipeline)] = pipe(
        "misty mountains", Image.open("painting.png"), num_frames=4, num_inference_steps=2, generator=generator,
        output_type="pt", flow_estimator="dis",
    ).frames.contiguous()
save_file(frames, "frames.safetensors")
"""


def test_a_pipeline_with_a_branch_is_pushed_and_loaded_by_its_name(hub, tmp_path):
    pipe = build_image_to_video()
    folder = export_pipeline(pipe, tmp_path / "pipeline", include_code=False)
    result = run("push", folder, "me/moving", *LICENSE)
    assert result.exit_code == 0, result.stderr
    files = hub.repos["me/moving"].files()
    assert IMAGE_TO_VIDEO_CODE <= files.keys()
    assert "image_retention/landscape_image_retention.py" in files
    assert ModelCard(files["README.md"].decode()).data.pipeline_tag == "image-to-video"
    painting(1, (96, 64)).save(tmp_path / "painting.png")
    run_elsewhere(hub, tmp_path, WITH_AN_IMAGE)
    generator = torch.Generator().manual_seed(5)
    arguments = {"num_frames": 4, "num_inference_steps": 2, "output_type": "pt", "flow_estimator": "dis"}
    expected = pipe("misty mountains", painting(1, (96, 64)), generator=generator, **arguments).frames
    frames = load_file(tmp_path / "frames.safetensors")
    assert len(frames) == 2 and all(torch.equal(one, expected) for one in frames.values())
    # Our own classes run none of the code there.
    hub.repos["me/moving"].commit(
        "break it", {**files, **dict.fromkeys(IMAGE_TO_VIDEO_CODE, b"raise SystemExit('it ran')")}
    )
    ours = LandscapeImageToVideoPipeline.from_pretrained("me/moving")
    assert torch.equal(ours.image_retention.conv_in.weight, pipe.image_retention.conv_in.weight)
    assert not hasattr(LandscapeVideoPipeline.from_pretrained("me/moving"), "image_retention")
