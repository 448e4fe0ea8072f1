"""Check the node pack in a real ComfyUI with a real AnimateDiff-Evolved, headless on the CPU, through the HTTP API.

    $ python benchmarks/comfyui.py COMFYUI ANIMATEDIFF_EVOLVED --python PYTHON --output benchmarks/results/comfyui.md

PYTHON has the requirements of ComfyUI and of the pack. Where it also has `landscape-video`, the nodes of the bundled
model are checked, too. The random Stable Diffusion 1.5 of the checks needs 12 GB of memory.
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from comfyui_adapters import ADAPTERS, RANDOM_ADAPTER, RandomModel, predicted_noise, write_config
from comfyui_server import ComfyUI, NodeError, Workflow
from comfyui_setup import PACK, ROOT, Rows, describe, finish, install_packs, parse_arguments, print_rows
from comfyui_windows import WINDOWS, check_plans, check_sampled_windows
from comfyui_workflows import INTERPOLATE, animation, generation, interpolation, sampling, saved
from landscape_video.scene_cuts import SceneDetector
from pipeline_landscape_video import interpolate_stream, load_flow_estimator
from pipeline_landscape_video.interpolation import doubled_times
from pipeline_landscape_video.landscape_motion_attention import SPARSE_CAUSAL_MODES
from pipeline_landscape_video.video_writing import read_metadata, write_video


BARE = "bare/diffusion_pytorch_model.safetensors"
CONFIGS = [{"sparse_causal_mode": mode, "motion_norm": "clip"} for mode in SPARSE_CAUSAL_MODES]
CONFIGS.insert(1, {"sparse_causal_mode": "previous", "motion_norm": "frame"})


def check_interpolation(server: ComfyUI, clip: np.ndarray) -> Rows:
    """Compare the node's frames with those of the command, before it encodes them."""
    workflow = interpolation("clip.png")
    workflow["4"] = {"class_type": "ProbeSaveImages", "inputs": {"images": ["2", 0], "name": "smooth"}}
    found = torch.from_numpy(np.load(server.file_of(server.run(workflow)["4"][0]))).movedim(-1, 1)
    fps, detector = INTERPOLATE["fps"], SceneDetector()
    for pixels in clip:
        detector.add(pixels)
    timestamps = [index / fps for index in range(len(clip))]
    numbers, positions = detector.find_pictures(timestamps, fps)
    scenes = detector.find_scenes(fps)
    cuts = iter([number in scenes for number in numbers[1:]])
    frames = zip(torch.from_numpy(clip[numbers]).movedim(-1, 1).float() / 255, positions, strict=True)
    output_times = doubled_times(timestamps, 2)
    options = {"times": 2, "is_cut": lambda *_: next(cuts), "output_times": output_times}
    expected = torch.stack([frame for frame, _ in interpolate_stream(frames, load_flow_estimator("dis"), **options)])
    difference = 255 * (expected - found).abs().max().item()
    used = f"{len(numbers)} of {len(clip)} frames are used, in {len(scenes)} scenes"
    text = f"{used}; they become {len(found)}, at most {difference:.4f}/255 apart"
    return [("Interpolation equals the command's to 1/255", text, difference <= 1 and len(scenes) == 2)]


def check_saved_clip(server: ComfyUI, clip: np.ndarray) -> Rows:
    """Save a clip of odd size, and read its tags."""
    workflow = saved(interpolation("odd.png"))
    graph = {"extra_pnginfo": {"workflow": {"nodes": [], "version": 0.4}}}
    file = server.file_of(server.run(workflow, graph)["4"][0])
    with av.open(str(file)) as container:
        stream, tags = container.streams.video[0], container.metadata
        size, rate = (stream.width, stream.height), float(stream.average_rate)
    recipe = read_metadata(file)
    kept = ("class_type", "inputs")  # ComfyUI adds what it found changed
    prompt = {node: {name: entry[name] for name in kept} for node, entry in json.loads(tags["prompt"]).items()}
    restored = prompt == workflow and "nodes" in json.loads(tags["workflow"])
    odd = (clip.shape[2] - 1, clip.shape[1] - 1)
    text = f"{odd[0]} x {odd[1]} saved as {size[0]} x {size[1]} at {rate:g} fps; tags {', '.join(sorted(tags))}"
    good = restored and rate == 32 and recipe["interpolation"]["times"] == 2 and not (size[0] % 2 or size[1] % 2)
    return [("A saved clip has even sizes, its workflow and its recipe", text, good)]


def check_even_sizes(server: ComfyUI) -> Rows:
    """Save frames of odd size with ComfyUI's own node, directly and after ours."""
    save = {"filename_prefix": "checks/own", "format": "auto", "format.codec": "auto"}
    odd = interpolation("odd.png")
    odd["5"] = {"class_type": "CreateVideo", "inputs": {"images": ["2", 0], "fps": 8.0}}
    odd["4"] = {"class_type": "SaveVideo", "inputs": {"video": ["5", 0], **save}}
    even = saved(interpolation("odd.png"))
    even["5"] = {"class_type": "SaveVideo", "inputs": {"video": ["4", 0], **save}}
    with av.open(str(server.file_of(server.run(even)["5"][0]))) as container:
        size = (container.streams.video[0].width, container.streams.video[0].height)
    message = message_of(server, odd).splitlines() or ["saves them, too"]
    text = f"{size[0]} x {size[1]} after Save Clip with Recipe; without it: {message[0][:100]}"
    return [("Frames of odd size reach Save Video with even sizes", text, not (size[0] % 2 or size[1] % 2))]


def check_messages(server: ComfyUI) -> Rows:
    """Give nodes wrong inputs, and read the messages that they show."""
    single = saved(interpolation("single.png"))
    incomplete = saved(interpolation("clip.png"))
    del incomplete["2"]["inputs"]["times"]
    several = saved(animation("clip.png"))
    cases = {
        "A single image": (single, "at least 2 frames, got 1"),
        "An input left out": (incomplete, "required_input_missing"),
    }
    if (server.base / "models" / ADAPTERS / RANDOM_ADAPTER).exists():
        wide = sampling("none.safetensors", windows={**WINDOWS, "context_overlap": 16, "closed_loop": False})
        cases |= {
            "An adapter of other sizes": (sampling("tiny.safetensors"), "must have (320, 640, 1280, 1280)"),
            "A file without motion modules": (sampling("none.safetensors"), "holds no motion modules"),
            "An adapter without its config": (sampling(BARE), "but not its config"),
            "A window no longer than its overlap": (wide, "must be smaller"),
        }
    if has_package(server):
        cases |= {
            "A folder that is not a model": (generation(str(server.base)), "model_index.json"),
            "A clip in place of a painting": (several, "must be a single image, got"),
        }
    rows = []
    for name, (workflow, expected) in cases.items():
        message = message_of(server, workflow)
        rows.append((f"{name} is a message", shorten(message), expected in message))
    return rows


def shorten(message: str) -> str:
    """Return what a node shows, or what ComfyUI says of an input, in a few words."""
    if message.startswith("{"):
        errors = json.loads(message)["node_errors"].values()
        message = "; ".join(f"{each['message']}: {each['details']}" for node in errors for each in node["errors"])
    return next(iter(message.splitlines()), "")[:160]


def has_package(server: ComfyUI) -> bool:
    return "LandscapeVideoGenerate" in server.get("/object_info")


def message_of(server: ComfyUI, workflow: Workflow) -> str:
    """Return the message with which a workflow fails, "" if it does not fail."""
    try:
        server.run(workflow)
    except NodeError as error:
        return str(error)
    return ""


def check_interrupts(server: ComfyUI) -> Rows:
    """Interrupt an interpolation, and a generation, whose steps are timed first."""
    rows = []
    message, seconds = interrupt(server, saved(interpolation("long.png", times=3)), after=3)
    rows.append(("Cancel stops interpolation", f"{message} {seconds:.1f} s later", "interrupted" in message))
    if has_package(server):
        times = []
        for steps in (1, 2, 10):  # the first run loads the model
            start = time.monotonic()
            server.run(saved(generation(num_frames=16, steps=steps)))
            times.append(time.monotonic() - start)
        step = (times[2] - times[1]) / 8
        message, seconds = interrupt(server, saved(generation(num_frames=16, steps=1000)), after=5 * step)
        # The history is read five times a second.
        right = "interrupted" in message and seconds < step + 0.5
        rows.append(("Cancel stops generation within a step", f"{message} {seconds / step:.1f} steps later", right))
    return rows


def interrupt(server: ComfyUI, workflow: Workflow, after: float) -> tuple[str, float]:
    """Interrupt a workflow after some seconds; return its message, and how many seconds it still ran."""
    run = server.queue(workflow)
    time.sleep(after)
    server.post("/interrupt", {})
    start = time.monotonic()
    try:
        server.wait(run)
    except NodeError as error:
        return str(error), time.monotonic() - start
    return "ran to its end", time.monotonic() - start


def check_api_examples(server: ComfyUI) -> Rows:
    """Run the examples for programs as they are, where their nodes are installed."""
    rows, known = [], server.get("/object_info")
    for file in sorted((ROOT / PACK / "api_examples").glob("*.json")):
        workflow = json.loads(file.read_text(encoding="utf-8"))
        if {entry["class_type"] for entry in workflow.values()} <= known.keys():
            clip = server.file_of(server.run(workflow)[max(workflow)][0])
            with av.open(str(clip)) as container:
                frames = sum(1 for _ in container.decode(video=0))
            recipe = read_metadata(clip)
            text = f"{frames} frames, {recipe['interpolation']['times']} doubling in the recipe"
            rows.append((f"`api_examples/{file.name}` runs", text, frames > 2 and "interpolation" in recipe))
    return rows


def check_adapters(server: ComfyUI, references: list[tuple[dict[str, str], Tensor]]) -> Rows:
    """Compare the noise that AnimateDiff-Evolved predicts with that of `UNetMotionModel`."""
    rows, file = [], server.base / "models" / ADAPTERS / RANDOM_ADAPTER
    for entries, expected in references:
        write_config(file, entries)
        found = sample(server, sampling(RANDOM_ADAPTER))
        plain = sample(server, sampling(RANDOM_ADAPTER, loader="ADE_LoadAnimateDiffModel"))
        difference, other = ((noise - expected).abs().max().item() for noise in (found, plain))
        name = " ".join(f"`{value}`" for value in entries.values())
        size = expected.abs().mean().item()
        text = f"largest difference {difference:.1e} (mean size {size:.2f}); with its own loader {other:.1e}"
        rows.append((f"Adapter {name} equals diffusers to 1e-3", text, difference <= 1e-3))
        if entries == CONFIGS[0]:
            twice = sample(server, sampling(RANDOM_ADAPTER, twice=True))
            difference = (twice - expected).abs().max().item()
            text = f"largest difference {difference:.1e}"
            rows.append(("The same, in a model that AnimateDiff-Evolved rebuilds", text, difference <= 1e-3))
    write_config(file, CONFIGS[0])  # as the clip in windows is sampled
    return rows


def check_bundled_model(server: ComfyUI) -> Rows:
    """Generate and animate with the bundled model, if the package is installed in ComfyUI's environment."""
    rows = []
    if not has_package(server):
        return rows
    for node in ("LandscapeVideoGenerate", "LandscapeVideoAnimate"):
        workflow = saved(generation() if node.endswith("Generate") else animation("single.png"))
        recipe = read_metadata(server.file_of(server.run(workflow)["4"][0]))
        text = f"{recipe['num_frames']} frames, seed {recipe['seed']}, {recipe['steps']} steps in the recipe"
        rows.append((f"{node} runs on the bundled model", text, recipe["seed"] == 7))
    return rows


def sample(server: ComfyUI, workflow: Workflow) -> Tensor:
    """Return the noise that the model predicts in a workflow of `sampling`."""
    saved = server.run(workflow)["9"][0]
    return predicted_noise(load_file(server.file_of(saved))["latent_tensor"].float())


def compute_references(base: Path) -> tuple[list[tuple[dict[str, str], Tensor]], Tensor]:
    """Make a random Stable Diffusion 1.5; return its noise with each config, and a clip sampled in windows."""
    model = RandomModel(base / "models")
    bare = base / "models" / ADAPTERS / BARE
    bare.parent.mkdir()
    shutil.copy(model.adapter_file, bare)
    write_config(bare, None)
    return [(entries, model.predict(entries)) for entries in CONFIGS], model.sample(CONFIGS[0], WINDOWS)


def prepare(base: Path, animatediff_evolved: Path) -> np.ndarray:
    """Install the packs into an empty base folder, make the inputs, and return the frames of `clip.png`."""
    install_packs(base, animatediff_evolved)
    random = torch.Generator().manual_seed(0)
    clips = []
    for brightness in (1.0, 0.2):  # two scenes of a moving texture
        scene = torch.rand(1, 3, 14, 24, generator=random) * brightness
        scene = torch.nn.functional.interpolate(scene, (112, 192), mode="bicubic", align_corners=False).clamp(0, 1)
        clips += [scene[0, :, :, 2 * step : 2 * step + 160] for step in range(4)]
    clip = (torch.stack(clips).movedim(1, -1) * 255).round().byte().numpy().repeat(2, axis=0)  # held for two frames
    clip[1::2] += (clip[1::2] < 255) & (clip[1::2] % 2 == 0)  # not quite equal: Pillow would save them as one
    files = {"clip.png": clip, "odd.png": clip[:, 1:, 1:], "single.png": clip[:1]}
    files["long.png"] = np.repeat(np.tile(clip[::2], (20, 1, 1, 1)), 3, axis=1)
    for name, frames in files.items():
        first, *others = [Image.fromarray(frame) for frame in frames]
        first.save(base / "input" / name, save_all=len(frames) > 1, append_images=others, duration=125)
    write_video(base / "input" / "landscape.mp4", clip, 8)
    models = base / "models" / ADAPTERS
    models.mkdir(parents=True)
    save_file({"weight": torch.zeros(2)}, models / "none.safetensors")
    norms = {
        f"down_blocks.{block}.motion_modules.{index}.norm.weight": torch.zeros(channels)
        for block, channels in enumerate((64, 128))
        for index in range(2)
    }
    save_file(norms, models / "tiny.safetensors")
    return clip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--no-adapters", action="store_true", help="skip the random Stable Diffusion 1.5")
    args = parse_arguments(parser)
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        clip = prepare(base, args.animatediff_evolved)
        checks: list[Callable[[ComfyUI], Rows]] = [
            lambda server: check_interpolation(server, clip),
            lambda server: check_saved_clip(server, clip),
            check_even_sizes,
            check_messages,
            check_interrupts,
            check_api_examples,
            check_plans,
            check_bundled_model,
        ]
        if not args.no_adapters:
            references, sampled = compute_references(base)
            checks += [
                lambda server: check_adapters(server, references),
                lambda server: check_sampled_windows(server, RANDOM_ADAPTER, sampled),
            ]
        with ComfyUI(args.comfyui.resolve(), base, args.python.absolute(), base / "comfyui.log") as server:
            rows = print_rows(row for check in checks for row in check(server))
            versions = describe(args.python, server, args.animatediff_evolved)
    finish("The node pack in ComfyUI", "benchmarks/comfyui.py", versions, rows, args.output)


if __name__ == "__main__":
    main()
