"""Check the node pack in a real ComfyUI with a real AnimateDiff-Evolved, headless on the CPU, through the HTTP API.

    $ python benchmarks/comfyui.py COMFYUI ANIMATEDIFF_EVOLVED --python PYTHON --output benchmarks/results/comfyui.md

PYTHON has the requirements of ComfyUI and of the pack. Where it also has `landscape-video`, the nodes of the bundled
model are checked, too. The random Stable Diffusion 1.5 of the checks needs 12 GB of memory.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from comfyui_adapters import RandomModel, predicted_noise, write_config
from comfyui_server import ComfyUI, NodeError, Workflow
from comfyui_workflows import INTERPOLATE, animation, generation, interpolation, sampling
from landscape_video.files import write_text
from landscape_video.scene_cuts import SceneDetector
from motion_adapter.markdown import markdown_table
from pipeline_landscape_video import interpolate_stream, load_flow_estimator
from pipeline_landscape_video.interpolation import doubled_times
from pipeline_landscape_video.landscape_motion_attention import SPARSE_CAUSAL_MODES
from pipeline_landscape_video.video_writing import read_metadata


ROOT = Path(__file__).resolve().parents[1]
PACK = "comfyui_landscape_video"
CONFIGS = [{"sparse_causal_mode": mode, "motion_norm": "clip"} for mode in SPARSE_CAUSAL_MODES]
CONFIGS.insert(1, {"sparse_causal_mode": "previous", "motion_norm": "frame"})

Rows = list[tuple[str, str, bool]]  # what was checked, what was found, whether that is right


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
    workflow = interpolation("odd.png")
    inputs = {"images": ["2", 0], "fps": ["2", 1], "filename_prefix": "checks/odd", "recipe": ["2", 2]}
    workflow["4"] = {"class_type": "LandscapeVideoSaveClip", "inputs": inputs}
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


def check_messages(server: ComfyUI, has_model: bool) -> Rows:
    """Give nodes wrong inputs, and read the messages that they show."""
    single = interpolation("single.png")
    single["4"] = {"class_type": "ProbeSaveImages", "inputs": {"images": ["2", 0], "name": "single"}}
    incomplete = interpolation("clip.png")
    del incomplete["2"]["inputs"]["times"]
    incomplete["4"] = single["4"]
    cases = {
        "A single image": (single, "at least 2 frames, got 1"),
        "An input left out": (incomplete, "required_input_missing"),
        "An adapter of other sizes": (sampling("tiny.safetensors"), "must have (320, 640, 1280, 1280)"),
        "A file without motion modules": (sampling("none.safetensors"), "holds no motion modules"),
        "An adapter without its config": (sampling("bare.safetensors"), "but not its config"),
        "A window no longer than its overlap": (sampling("none.safetensors", overlap=16), "must be smaller"),
    }
    if not has_model:
        cases = {name: case for name, case in cases.items() if "8" not in case[0]}  # those without sampling
    if "LandscapeVideoGenerate" in server.get("/object_info"):
        cases["A folder that is not a model"] = (generation(str(server.base)), "model_index.json")
    rows = []
    for name, (workflow, expected) in cases.items():
        message = message_of(server, workflow)
        rows.append((f"{name} is a message", message.splitlines()[0][:160], expected in message))
    return rows


def message_of(server: ComfyUI, workflow: Workflow) -> str:
    """Return the message with which a workflow fails, "" if it does not fail."""
    try:
        server.run(workflow)
    except NodeError as error:
        return str(error)
    return ""


def check_interrupt(server: ComfyUI) -> Rows:
    """Interrupt a long interpolation, and measure how long it still runs."""
    workflow = interpolation("long.png", times=3)
    workflow["4"] = {"class_type": "ProbeSaveImages", "inputs": {"images": ["2", 0], "name": "long"}}
    run = server.queue(workflow)
    time.sleep(3)
    server.post("/interrupt", {})
    start = time.monotonic()
    try:
        server.wait(run)
        message = "ran to its end"
    except NodeError as error:
        message = str(error)
    return [
        ("Cancel stops interpolation", f"{message} {time.monotonic() - start:.1f} s later", "interrupted" in message)
    ]


def check_adapters(server: ComfyUI, model: RandomModel, references: list[tuple[dict[str, str], Tensor]]) -> Rows:
    """Compare the noise that AnimateDiff-Evolved predicts with that of `UNetMotionModel`."""
    rows = []
    for entries, expected in references:
        write_config(model.adapter_file, entries)
        found = sample(server, sampling(model.adapter_file.name))
        plain = sample(server, sampling(model.adapter_file.name, loader="ADE_LoadAnimateDiffModel"))
        difference, other = ((noise - expected).abs().max().item() for noise in (found, plain))
        name = " ".join(f"`{value}`" for value in entries.values())
        size = expected.abs().mean().item()
        text = f"largest difference {difference:.1e} (mean size {size:.2f}); with its own loader {other:.1e}"
        rows.append((f"Adapter {name} equals diffusers to 1e-3", text, difference <= 1e-3))
        if entries == CONFIGS[0]:
            twice = sample(server, sampling(model.adapter_file.name, twice=True))
            difference = (twice - expected).abs().max().item()
            text = f"largest difference {difference:.1e}"
            rows.append(("The same, in a model that AnimateDiff-Evolved rebuilds", text, difference <= 1e-3))
    windows = sample(server, sampling(model.adapter_file.name, overlap=1))
    moved = (windows - references[-1][1]).abs().max().item()
    rows.append(("Windows of 4 of 8 frames are sampled", f"differ from 8 frames by {moved:.1e}", moved > 1e-3))
    return rows


def check_bundled_model(server: ComfyUI) -> Rows:
    """Generate and animate with the bundled model, if the package is installed in ComfyUI's environment."""
    rows = []
    for node in ("LandscapeVideoGenerate", "LandscapeVideoAnimate"):
        workflow = generation() if node.endswith("Generate") else animation("single.png")
        inputs = {"images": ["1", 0], "fps": ["1", 1], "filename_prefix": "checks/bundled", "recipe": ["1", 2]}
        workflow["4"] = {"class_type": "LandscapeVideoSaveClip", "inputs": inputs}
        recipe = read_metadata(server.file_of(server.run(workflow)["4"][0]))
        text = f"{recipe['num_frames']} frames, seed {recipe['seed']}, {recipe['steps']} steps in the recipe"
        rows.append((f"{node} runs on the bundled model", text, recipe["seed"] == 7))
    return rows


def sample(server: ComfyUI, workflow: Workflow) -> Tensor:
    """Return the noise that the model predicts in a workflow of `sampling`."""
    saved = server.run(workflow)["9"][0]
    return predicted_noise(load_file(server.file_of(saved))["latent_tensor"].float())


def prepare(base: Path, animatediff_evolved: Path) -> np.ndarray:
    """Install the packs into an empty base folder, make the inputs, and return the frames of `clip.png`."""
    custom_nodes = base / "custom_nodes"
    shutil.copytree(ROOT / PACK, custom_nodes / PACK, ignore=shutil.ignore_patterns("__pycache__", "vendor.py"))
    ignore = shutil.ignore_patterns(".git", "__pycache__")
    shutil.copytree(animatediff_evolved, custom_nodes / "ComfyUI-AnimateDiff-Evolved", ignore=ignore)
    shutil.copy(Path(__file__).with_name("comfyui_probe.py"), custom_nodes)
    for name in ("input", "output"):
        (base / name).mkdir()
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
    models = base / "models" / "animatediff_models"
    models.mkdir(parents=True)
    save_file({"weight": torch.zeros(2)}, models / "none.safetensors")
    norms = {
        f"down_blocks.{block}.motion_modules.{index}.norm.weight": torch.zeros(channels)
        for block, channels in enumerate((64, 128))
        for index in range(2)
    }
    save_file(norms, models / "tiny.safetensors")
    return clip


def describe(python: Path, server: ComfyUI, animatediff_evolved: Path) -> list[str]:
    """Return what ran, with versions, as lines of Markdown."""
    names = ["torch", "torchvision", "numpy", "opencv-python", "einops", "av", "diffusers", "landscape-video"]
    code = (
        "import importlib.metadata as m, json, sys\n"
        "found = {}\n"
        "for name in sys.argv[1:]:\n"
        "    try: found[name] = m.version(name)\n"
        "    except m.PackageNotFoundError: found[name] = 'not installed'\n"
        "print(json.dumps(found))"
    )
    result = subprocess.run([python, "-c", code, *names], capture_output=True, text=True, check=True)
    versions = {"ComfyUI": server.system["comfyui_version"]}
    project = tomllib.loads((animatediff_evolved / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    versions["ComfyUI-AnimateDiff-Evolved"] = project["version"]
    versions |= json.loads(result.stdout)
    return [f"* {name} {version}" for name, version in versions.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("comfyui", type=Path, help="checkout of ComfyUI; it is not changed")
    parser.add_argument("animatediff_evolved", type=Path, help="checkout of ComfyUI-AnimateDiff-Evolved")
    parser.add_argument(
        "--python", type=Path, default=Path(sys.executable), help="Python that runs ComfyUI (default: this one)"
    )
    parser.add_argument("--output", type=Path, help="Markdown file for the result (default: print only)")
    parser.add_argument("--no-adapters", action="store_true", help="skip the random Stable Diffusion 1.5")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        clip = prepare(base, args.animatediff_evolved)
        references = []
        if not args.no_adapters:
            model = RandomModel(base / "models")
            write_config(model.adapter_file, None)
            shutil.copy(model.adapter_file, base / "models" / "animatediff_models" / "bare.safetensors")
            references = list(model.references(CONFIGS))
        rows: Rows = []
        with ComfyUI(args.comfyui.resolve(), base, args.python.absolute(), base / "comfyui.log") as server:
            nodes = server.get("/object_info")
            checks: list[Callable[[], Rows]] = [
                lambda: check_interpolation(server, clip),
                lambda: check_saved_clip(server, clip),
                lambda: check_messages(server, bool(references)),
                lambda: check_interrupt(server),
            ]
            if references:
                checks.append(lambda: check_adapters(server, model, references))
            if "LandscapeVideoGenerate" in nodes:
                checks.append(lambda: check_bundled_model(server))
            for check in checks:
                for row in check():
                    rows.append(row)
                    print("ok  " if row[2] else "FAIL", row[0], "-", row[1], flush=True)
            versions = describe(args.python, server, args.animatediff_evolved)
    lines = ["# The node pack in ComfyUI", "", "Made by `benchmarks/comfyui.py` on the CPU.", "", *versions, ""]
    table = [(name, text, "yes" if right else "**no**") for name, text, right in rows]
    lines.append(markdown_table(["check", "found", "right"], table))
    if args.output:
        write_text(args.output, "\n".join(lines) + "\n")
    sys.exit(not all(right for _, _, right in rows))


if __name__ == "__main__":
    main()
