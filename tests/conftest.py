"""Fixtures for all tests, on the small models of `tiny_models.py`.

- `tiny_components()`: keyword arguments of a `LandscapeVideoPipeline` (8 to 16 channels, 64 x 64 pixels, an 8x VAE)
- `tiny_pipeline()`: the pipeline itself
- `models`: a folder of such models; `generate(...)` runs the command on one of them
- `train(...)`: runs the trainer on `image_model` and `latent_cache`

Importing diffusers takes seconds, so fixtures import it only when a test uses them.
"""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


# Set before anything imports huggingface_hub, so that no test waits for a network.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

# One process per core with one thread each, because the models are too small to gain from more threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell lets background processes ignore Ctrl-C, and all processes of the tests would inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Let pytest explain failed assertions in these modules, too.
pytest.register_assert_rewrite("dense_attention", "motion_unets")


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory) -> Iterator[None]:
    """Keep tests away from the user's cache of encoded clips."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LANDSCAPE_VIDEO_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def tiny_components() -> Callable[..., dict[str, Any]]:
    """Return a factory: `tiny_components(sparse_causal_mode="previous", seed=0, **components_to_replace)`."""
    from tiny_models import build_components

    return build_components


@pytest.fixture
def tiny_pipeline() -> Callable[..., Any]:
    """Return a factory of pipelines without progress bars; its arguments are those of `tiny_components`."""
    from pipeline_landscape_video import LandscapeVideoPipeline
    from tiny_models import build_components

    def build(**arguments: Any) -> LandscapeVideoPipeline:
        pipe = LandscapeVideoPipeline(**build_components(**arguments))
        pipe.set_progress_bar_config(disable=True)
        return pipe

    return build


@pytest.fixture
def fixed_seed() -> None:
    """Fix the seed, for tests that build models without one."""
    import torch

    torch.manual_seed(0)


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Path:
    """Save models in a folder: video/ (our pipeline), still/ (Stable Diffusion's layout), adapter/, lora/."""
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
    """Run `generate` in an empty folder: by default 4 frames in 2 steps with the saved pipeline."""
    from typer.testing import CliRunner

    from landscape_video.cli.main import app

    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, model: str | None = "video") -> Any:  # click's `Result`
        arguments = ["generate", *map(str, arguments)]
        defaults = {"--num-frames": "4", "--steps": "2", "--model": model and str(models / model), "--device": "cpu"}
        for option, value in defaults.items():
            if option not in arguments and value is not None:
                arguments += [option, value]
        return CliRunner().invoke(app, arguments)

    return run


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Replace the Hub by a `HubServer` in this process, for the user `me`, with an empty cache."""
    from huggingface_hub import constants, hf_api

    from hub_server import serving

    with serving() as server:
        monkeypatch.setenv("HF_TOKEN", "hf_me")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub_cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no_token"))
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(hf_api.api, "endpoint", server.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        # The client retries for up to half a minute; here, waiting changes nothing.
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
        yield server


@pytest.fixture(scope="session")
def image_model(tmp_path_factory) -> Path:
    """Write a small image model in Stable Diffusion's layout, and return its folder."""
    from training_runs import write_image_model

    return write_image_model(tmp_path_factory.mktemp("image_model"))


@pytest.fixture(scope="session")
def latent_cache(tmp_path_factory) -> Path:
    """Write a latent cache with five clips, and return its folder."""
    from training_runs import write_latent_cache

    return write_latent_cache(tmp_path_factory.mktemp("latent_cache"))


@pytest.fixture(scope="session")
def tiny_classifier(tmp_path_factory) -> Path:
    """Save a small video classifier, and return its folder."""
    from tiny_models import build_classifier

    return build_classifier(tmp_path_factory.mktemp("classifier") / "videomae-tiny")


@pytest.fixture
def train(image_model, latent_cache, tmp_path) -> Callable[..., tuple[int, Path]]:
    """Return a runner of the trainer: `train(name, *flags, data=latent_cache)` returns (exit code, output folder)."""
    from training_runs import run_trainer

    def train(name: str, *flags: str, data: Path = latent_cache) -> tuple[int, Path]:
        return run_trainer(image_model, data, tmp_path / name, *flags), tmp_path / name

    return train
