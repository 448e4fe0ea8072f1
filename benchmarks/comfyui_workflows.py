"""Workflows for the checks of the node pack, in ComfyUI's API format with complete inputs."""

from typing import Any

from comfyui_adapters import GUIDANCE, NEGATIVE, NUM_FRAMES, POSITIVE, RANDOM_UNET, SEED, SIZE
from comfyui_server import Workflow


INTERPOLATE = {"times": 2, "fps": 8.0, "sofp_mode": "quadratic", "flow": "dis", "keep_duplicates": False}


def interpolation(image: str, times: int = 2) -> Workflow:
    """Interpolate the frames of an animated image."""
    inputs = {**INTERPOLATE, "images": ["1", 0], "times": times}
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": image}},
        "2": {"class_type": "LandscapeVideoInterpolate", "inputs": inputs},
    }


def generation(model: str = "shanshui-tiny", num_frames: int = 4, steps: int = 2) -> Workflow:
    inputs = {"prompt": "mist over mountains", "model": model, "num_frames": num_frames, "steps": steps, "seed": 7}
    return {
        "1": {"class_type": "LandscapeVideoGenerate", "inputs": inputs},
        "4": {"class_type": "ProbeSaveImages", "inputs": {"images": ["1", 0], "name": "generated"}},
    }


def animation(image: str) -> Workflow:
    workflow = generation()
    workflow["0"] = {"class_type": "LoadImage", "inputs": {"image": image}}
    workflow["1"]["class_type"] = "LandscapeVideoAnimate"
    workflow["1"]["inputs"]["image"] = ["0", 0]
    return workflow


def saved(workflow: Workflow) -> Workflow:
    """Save the clip of the last node of a workflow, which is not 4, as node 4."""
    last = max(set(workflow) - {"4"})
    inputs = {"images": [last, 0], "fps": [last, 1], "filename_prefix": "checks/clip", "recipe": [last, 2]}
    return workflow | {"4": {"class_type": "LandscapeVideoSaveClip", "inputs": inputs}}


def moving_windows(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the node of our windows."""
    return {"class_type": "LandscapeVideoMovingWindows", "inputs": settings}


def stepwise(workflow: Workflow, sigmas: list[float]) -> Workflow:
    """Sample a workflow of `sampling` at given sigmas."""
    sampler = workflow["8"]["inputs"]
    kept = ("model", "positive", "negative", "latent_image", "cfg")
    inputs = {name: sampler[name] for name in kept} | {"add_noise": True, "noise_seed": sampler["seed"]}
    inputs |= {"sampler": ["20", 0], "sigmas": ["21", 0]}
    return workflow | {
        "20": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "euler"}},
        "21": {"class_type": "ManualSigmas", "inputs": {"sigmas": ", ".join(f"{sigma:.9g}" for sigma in sigmas)}},
        "8": {"class_type": "SamplerCustom", "inputs": inputs},
    }


def sampling(
    adapter: str,
    loader: str = "LandscapeVideoLoadMotionAdapter",
    twice: bool = False,
    windows: dict[str, Any] | None = None,
) -> Workflow:
    """Sample latents in one step; `twice` applies the adapter twice, the first time without effect."""
    loaded = {"adapter": adapter, "sparse_causal_mode": "from file", "motion_norm": "from file"}
    sampler = {"seed": SEED, "steps": 1, "cfg": GUIDANCE, "sampler_name": "euler", "scheduler": "normal", "denoise": 1}
    sampler |= {"model": ["4", 0], "positive": ["5", 0], "negative": ["6", 0], "latent_image": ["7", 0]}
    latents = {"width": 8 * SIZE, "height": 8 * SIZE, "batch_size": NUM_FRAMES}
    evolved = {"model": ["1", 0], "beta_schedule": "autoselect", "m_models": ["3", 0]}
    workflow = {
        "1": {
            "class_type": "UNETLoader",
            "inputs": {"unet_name": RANDOM_UNET, "weight_dtype": "default"},
        },
        "2": {"class_type": loader, "inputs": loaded if loader.startswith("Landscape") else {"model_name": adapter}},
        "3": {"class_type": "ADE_ApplyAnimateDiffModelSimple", "inputs": {"motion_model": ["2", 0]}},
        "4": {"class_type": "ADE_UseEvolvedSampling", "inputs": evolved},
        "5": {"class_type": "ProbeConditioning", "inputs": {"seed": POSITIVE}},
        "6": {"class_type": "ProbeConditioning", "inputs": {"seed": NEGATIVE}},
        "7": {"class_type": "EmptyLatentImage", "inputs": latents},
        "8": {"class_type": "KSampler", "inputs": sampler},
        "9": {"class_type": "SaveLatent", "inputs": {"samples": ["8", 0], "filename_prefix": "noise"}},
    }
    if twice:
        workflow["10"] = {"class_type": "ADE_MultivalDynamic", "inputs": {"float_val": 0.0}}
        workflow["3"]["inputs"]["effect_multival"] = ["10", 0]
        again = {"motion_model": ["2", 0], "prev_m_models": ["3", 0], "start_percent": 0.0, "end_percent": 1.0}
        workflow["11"] = {"class_type": "ADE_ApplyAnimateDiffModel", "inputs": again}
        evolved["m_models"] = ["11", 0]
    if windows is not None:
        workflow["12"] = moving_windows(windows)
        evolved["context_options"] = ["12", 0]
    return workflow
