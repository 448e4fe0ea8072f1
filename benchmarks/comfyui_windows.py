"""Compare the windows of the node Moving Windows in AnimateDiff-Evolved with those of our pipeline."""

import json
from itertools import product

import torch
from safetensors.torch import load_file
from torch import Tensor

from comfyui_adapters import LATENT_SCALE, NUM_FRAMES, sampling_sigmas
from comfyui_server import ComfyUI
from comfyui_setup import Rows
from comfyui_workflows import moving_windows, sampling, stepwise
from pipeline_landscape_video.landscape_windows import CONTEXT_SCHEDULES, CONTEXT_WEIGHTS, WindowPlan, window_weights


# Frames of the clip, frames per window, overlap
LENGTHS = ((17, 16, 4), (24, 16, 4), (33, 16, 8), (64, 16, 4), (23, 8, 3), (100, 24, 0), (16, 16, 4), (9, 7, 6))
STEPS = 25
WINDOWS = {"context_length": 5, "context_overlap": 2, "context_schedule": "moved", "context_weights": "pyramid"}


def check_plans(server: ComfyUI) -> Rows:
    """Compare frames and weights of all windows, step by step."""
    equal, total, different = 0, 0, []
    for (num_frames, window, overlap), schedule, weights, closed_loop in product(
        LENGTHS, CONTEXT_SCHEDULES, CONTEXT_WEIGHTS, (False, True)
    ):
        plan = WindowPlan(num_frames, window, overlap, schedule, weights, closed_loop)
        settings = {"context_length": window, "context_overlap": overlap, "context_schedule": schedule}
        settings |= {"context_weights": weights, "closed_loop": closed_loop}
        workflow = {"1": moving_windows(settings)}
        probe = {"context_options": ["1", 0], "num_frames": num_frames, "steps": STEPS, "name": "windows"}
        workflow["2"] = {"class_type": "ProbeWindows", "inputs": probe}
        found = json.loads(server.file_of(server.run(workflow)["2"][0]).read_text())
        expected = {
            "windows": [plan.windows(step) for step in range(STEPS)],
            "weights": window_weights(plan, (1, 4, num_frames, 1, 1)).flatten().tolist(),
        }
        total, equal = total + 1, equal + (found == expected)
        if found != expected:
            different.append(f"{num_frames} frames, {settings}")
    text = f"{equal} of {total} plans equal in all of {STEPS} steps, for {', '.join(str(case[0]) for case in LENGTHS)}"
    text += " frames" + "".join(f"; not {case}" for case in different)
    return [("Windows and weights equal those of our pipeline", text, equal == total)]


def check_sampled_windows(server: ComfyUI, adapter: str, expected: Tensor) -> Rows:
    """Compare latents that ComfyUI samples in windows with those of our pipeline, and with those of other windows."""
    differences = []
    for schedule in CONTEXT_SCHEDULES:
        windows = {**WINDOWS, "context_schedule": schedule, "closed_loop": False}
        workflow = stepwise(sampling(adapter, windows=windows), sampling_sigmas())
        latents = load_file(server.file_of(server.run(workflow)["9"][0]))["latent_tensor"].float() * LATENT_SCALE
        differences.append((latents - expected).abs().max().item())
    moved, static = differences
    text = f"largest difference {moved:.1e} (mean size {expected.abs().mean():.2f}); with static windows {static:.1e}"
    title = f"{NUM_FRAMES} frames in moved windows of 5 equal our pipeline's to 1e-3"
    return [(title, text, moved <= 1e-3 and not torch.isnan(latents).any().item() and static > 1e-2)]
