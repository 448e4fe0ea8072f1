"""The pipelines as `custom_pipeline` code: rules of diffusers' loader, and loading without this package."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


PACKAGE = Path(__file__).parents[2] / "pipeline_landscape_video"
PIPELINE, WITH_PICTURES = PACKAGE / "pipeline.py", PACKAGE / "pipeline_image_to_video.py"
CLASSES = {PIPELINE: "LandscapeVideoPipeline", WITH_PICTURES: "LandscapeImageToVideoPipeline"}
OUR_PACKAGES = ("pipeline_landscape_video", "motion_adapter", "landscape_video", "shanshui", "training")


def imports_of(file: Path) -> list[ast.Import | ast.ImportFrom]:
    return [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)]


def relative_imports_of(file: Path) -> list[ast.ImportFrom]:
    return [node for node in imports_of(file) if isinstance(node, ast.ImportFrom) and node.level > 0]


def roots_of(file: Path) -> set[str]:
    """Names of the top-level packages that `file` imports absolutely."""
    roots = set()
    for node in imports_of(file):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif node.level == 0:
            roots.add(node.module.split(".")[0])
    return roots


LEAVES = sorted(
    {PACKAGE / f"{node.module}.py" for file in CLASSES for node in relative_imports_of(file) if node.module}
)


# What the loader allows: it copies the files named in pipeline.py, flat, and nothing that those name in turn


@pytest.mark.parametrize("pipeline", CLASSES, ids=lambda path: path.name)
def test_pipeline_imports_leaf_siblings_by_name(pipeline):
    assert relative_imports_of(pipeline)
    for node in relative_imports_of(pipeline):
        assert node.level == 1, "no import from a parent package"
        assert node.module and "." not in node.module, "no `from . import x`, no sub-packages"
        assert node.module.startswith("landscape_"), "siblings of all pipelines share one namespace: long unique names"
        assert (PACKAGE / f"{node.module}.py").is_file()
        assert "*" not in [alias.name for alias in node.names]


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda path: path.name)
def test_leaves_import_no_siblings(leaf):
    assert not relative_imports_of(leaf)


@pytest.mark.parametrize("file", [*CLASSES, *LEAVES], ids=lambda path: path.name)
def test_code_for_the_hub_needs_no_package_of_ours(file):
    assert not roots_of(file) & set(OUR_PACKAGES)


@pytest.mark.parametrize("file", [*CLASSES, *LEAVES], ids=lambda path: path.name)
def test_text_looks_to_the_loader_like_the_code(file):
    # The loader scans the text with regular expressions: a line of a docstring can look like an import.
    from diffusers.utils.dynamic_modules_utils import get_relative_imports

    assert set(get_relative_imports(file)) == {node.module for node in relative_imports_of(file)}


@pytest.mark.parametrize("pipeline", CLASSES, ids=lambda path: path.name)
def test_pipeline_defines_one_pipeline_class(pipeline):
    classes = [node for node in ast.parse(pipeline.read_text()).body if isinstance(node, ast.ClassDef)]
    assert [node.name for node in classes] == [CLASSES[pipeline]]
    imported = [alias.name for node in relative_imports_of(pipeline) for alias in node.names]
    assert not [name for name in imported if name.endswith("Pipeline")]


# Loading in a fresh process, with a fresh module cache, where `import pipeline_landscape_video` fails

LOADING = """
import sys

for name in ("pipeline_landscape_video", "motion_adapter"):
    sys.modules[name] = None  # makes every import of it fail, installed or not

import torch
from diffusers import DiffusionPipeline, MotionAdapter


def save(pipe, file):
    assert type(pipe).__module__.startswith("diffusers_modules."), type(pipe)
    takes_image = type(pipe).__name__ == "LandscapeImageToVideoPipeline"
    assert takes_image or type(pipe).__name__ == "LandscapeVideoPipeline"
    extra = {"image": torch.linspace(0, 1, 3 * 64 * 64).view(3, 64, 64)} if takes_image else {}
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    frames = pipe(
        "misty mountains", num_frames=4, num_inference_steps=2, generator=generator, output_type="pt",
        flow_estimator="dis", **extra,
    ).frames
    torch.save(frames, file)


try:
    import pipeline_landscape_video
except ImportError:
    pass
else:
    raise AssertionError("the package must not be importable here")
"""


def load_elsewhere(script: str, folder: Path) -> None:
    """Run `script` after `LOADING` in a fresh process in `folder`, with an empty cache of remote code."""
    environment = os.environ | {"HF_MODULES_CACHE": str(folder / "modules"), "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    finished = subprocess.run(
        [sys.executable, "-c", LOADING + script], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr


def frames_of(pipe):
    import torch

    generator = torch.Generator().manual_seed(0)
    arguments = {"num_frames": 4, "num_inference_steps": 2, "output_type": "pt", "flow_estimator": "dis"}
    if "image_retention" in pipe.components:
        arguments["image"] = torch.linspace(0, 1, 3 * 64 * 64).view(3, 64, 64)
    return pipe("misty mountains", generator=generator, **arguments).frames


def test_custom_pipeline_folder_loads_where_we_are_not_installed(tiny_pipeline, tmp_path):
    import torch

    from motion_adapter.export import export_pipeline

    pipe = tiny_pipeline(motion_norm="frame")
    export_pipeline(pipe, tmp_path / "model", include_code=False)
    shutil.copytree(PACKAGE, tmp_path / "pipeline_landscape_video", ignore=shutil.ignore_patterns("shanshui_tiny"))
    load_elsewhere(
        """
folder = "pipeline_landscape_video"
save(DiffusionPipeline.from_pretrained("model", custom_pipeline=folder, trust_remote_code=True), "frames.pt")
try:
    DiffusionPipeline.from_pretrained("model", custom_pipeline=folder)
except ValueError as error:
    assert "trust_remote_code=True" in str(error)
else:
    raise AssertionError("code ran without trust_remote_code")
""",
        tmp_path,
    )
    torch.testing.assert_close(torch.load(tmp_path / "frames.pt"), frames_of(pipe))


def test_export_loads_where_we_are_not_installed(tiny_pipeline, tiny_components, tmp_path):
    import torch

    from motion_adapter.export import export_pipeline

    pipe = tiny_pipeline()
    export_pipeline(pipe, tmp_path / "export", dtype=torch.float16)
    components = tiny_components()
    for name in ("vae", "text_encoder", "tokenizer", "unet", "motion_adapter", "scheduler"):
        components[name].save_pretrained(tmp_path / "base" / name)
    (tmp_path / "base" / "model_index.json").write_text(BASE_INDEX)
    load_elsewhere(
        """
save(DiffusionPipeline.from_pretrained("export", trust_remote_code=True), "frames.pt")
adapter = MotionAdapter.from_pretrained("base/motion_adapter")
pipe = DiffusionPipeline.from_pretrained(
    "base", motion_adapter=adapter, custom_pipeline="export", trust_remote_code=True
)
save(pipe, "on_base.pt")
""",
        tmp_path,
    )
    from pipeline_landscape_video import LandscapeVideoPipeline

    loaded = LandscapeVideoPipeline.from_pretrained(tmp_path / "export")  # our class, none of the folder's code
    assert type(loaded) is LandscapeVideoPipeline
    loaded.set_progress_bar_config(disable=True)
    torch.testing.assert_close(torch.load(tmp_path / "frames.pt"), frames_of(loaded))
    torch.testing.assert_close(torch.load(tmp_path / "on_base.pt"), frames_of(pipe))


def test_image_to_video_pipelines_load_where_we_are_not_installed(tiny_pipeline, tmp_path):
    import torch

    from motion_adapter.export import export_pipeline
    from retention_models import build_image_to_video

    pipe = build_image_to_video(motion_norm="frame")
    export_pipeline(pipe, tmp_path / "export")
    export_pipeline(pipe, tmp_path / "model", include_code=False)
    export_pipeline(tiny_pipeline(), tmp_path / "base", include_code=False)
    shutil.copytree(PACKAGE, tmp_path / "pipeline_landscape_video", ignore=shutil.ignore_patterns("shanshui_tiny"))
    load_elsewhere(
        """
save(DiffusionPipeline.from_pretrained("export", trust_remote_code=True), "frames.pt")
code = "pipeline_landscape_video/pipeline_image_to_video.py"
save(DiffusionPipeline.from_pretrained("model", custom_pipeline=code, trust_remote_code=True), "custom.pt")
pipe = DiffusionPipeline.from_pretrained("base", custom_pipeline="export", trust_remote_code=True)
save(pipe, "text.pt")
assert type(pipe).__name__ == "LandscapeVideoPipeline"
""",
        tmp_path,
    )
    torch.testing.assert_close(torch.load(tmp_path / "frames.pt"), frames_of(pipe))
    torch.testing.assert_close(torch.load(tmp_path / "custom.pt"), frames_of(pipe))
    text_only = torch.load(tmp_path / "text.pt")
    assert text_only.shape == frames_of(pipe).shape and not torch.allclose(text_only, frames_of(pipe), atol=1e-3)


BASE_INDEX = """{
  "_class_name": "StableDiffusionPipeline",
  "_diffusers_version": "0.42.1",
  "vae": ["diffusers", "AutoencoderKL"],
  "text_encoder": ["transformers", "CLIPTextModel"],
  "tokenizer": ["transformers", "CLIPTokenizer"],
  "unet": ["diffusers", "UNet2DConditionModel"],
  "scheduler": ["diffusers", "DDIMScheduler"],
  "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
  "requires_safety_checker": true
}"""


# The package itself


def test_importing_the_package_is_free():
    script = "import sys, pipeline_landscape_video, motion_adapter; print(*sys.modules)"
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"torch", "diffusers", "transformers", "cv2"} & set(finished.stdout.split())


def test_every_public_name_is_there_when_asked_for():
    import pipeline_landscape_video

    assert pipeline_landscape_video.SHANSHUI_TINY == Path(pipeline_landscape_video.__file__).parent / "shanshui_tiny"
    for name in pipeline_landscape_video.__all__:
        assert getattr(pipeline_landscape_video, name) is not None
        assert name in dir(pipeline_landscape_video)
    with pytest.raises(AttributeError, match="has no attribute 'FlowInterpolator'"):
        _ = pipeline_landscape_video.FlowInterpolator
