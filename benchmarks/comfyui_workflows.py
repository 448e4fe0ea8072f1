"""Workflows for the checks of the node pack, in ComfyUI's API format with complete inputs."""

from comfyui_adapters import GUIDANCE, NEGATIVE, NUM_FRAMES, POSITIVE, SEED, SIZE
from comfyui_server import Workflow


INTERPOLATE = {"times": 2, "fps": 8.0, "sofp_mode": "quadratic", "flow": "dis", "keep_duplicates": False}


def interpolation(image: str, times: int = 2) -> Workflow:
    """Interpolate the frames of an animated image."""
    inputs = {**INTERPOLATE, "images": ["1", 0], "times": times}
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": image}},
        "2": {"class_type": "LandscapeVideoInterpolate", "inputs": inputs},
    }


def generation(model: str = "shanshui-tiny") -> Workflow:
    inputs = {"prompt": "mist over mountains", "model": model, "num_frames": 4, "steps": 2, "seed": 7}
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


def sampling(
    adapter: str, loader: str = "LandscapeVideoLoadMotionAdapter", twice: bool = False, overlap: int | None = None
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
            "inputs": {"unet_name": "random_sd15.safetensors", "weight_dtype": "default"},
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
    if overlap is not None:
        windows = {"context_length": 4, "context_overlap": overlap, "context_schedule": "moved"}
        windows |= {"context_weights": "pyramid", "closed_loop": False}
        workflow["12"] = {"class_type": "LandscapeVideoMovingWindows", "inputs": windows}
        evolved["context_options"] = ["12", 0]
    return workflow
