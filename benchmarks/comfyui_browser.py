"""Open the example workflows of the node pack in ComfyUI's own page, run them there, and drop their clips back on it.

    $ python benchmarks/comfyui_browser.py COMFYUI ANIMATEDIFF_EVOLVED --python PYTHON --chromium /usr/bin/chromium \\
        --output benchmarks/results/comfyui_browser.md

PYTHON has the requirements of ComfyUI, and `landscape-video`. This script needs playwright beside the package. The
workflows for Stable Diffusion 1.5 run with random weights, on small images.
"""

import argparse
import base64
import io
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
from diffusers import AutoencoderKL
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel

from comfyui_adapters import ADAPTERS, RANDOM_ADAPTER, RANDOM_UNET, save_random_model
from comfyui_server import ComfyUI
from comfyui_setup import PACK, ROOT, Rows, describe, finish, install_packs, parse_arguments, print_rows
from comfyui_workflows import generation, saved
from pipeline_landscape_video.video_writing import read_metadata


if TYPE_CHECKING:
    from playwright.sync_api import Page

EXAMPLES = ROOT / PACK / "example_workflows"
CHECKPOINT, ADAPTER, CLIP, PAINTING = (
    "v1-5-pruned-emaonly-fp16.safetensors",
    "landscape_motion.safetensors",
    "landscape.mp4",
    "painting.png",
)
# What the example workflows of Stable Diffusion 1.5 are run with: widget values by class of the node
SMALL = {
    "EmptyLatentImage": {"width": 64, "height": 64, "batch_size": 6},
    "KSampler": {"steps": 2},
    "LandscapeVideoMovingWindows": {"context_length": 4, "context_overlap": 1},
}
VIEWPORT = {"width": 1400, "height": 800}
QUALITY = 85  # of the pictures
NODES = """() => app.rootGraph.nodes.map(node => ({
    id: node.id, type: node.type, known: node.type in LiteGraph.registered_node_types || node.type == 'MarkdownNote',
    widgets: (node.widgets || []).filter(widget => widget.options?.serialize !== false)
        .map(widget => [widget.name, typeof widget.value == 'object' ? null : widget.value]),
    links: (node.inputs || []).map(input => input.link != null),
})).sort((a, b) => String(a.id).localeCompare(String(b.id)))"""
SET_WIDGETS = """values => { for (const node of app.rootGraph.nodes) for (const widget of node.widgets || [])
    if (values[node.type] && widget.name in values[node.type]) widget.value = values[node.type][widget.name]; }"""
DROP = """([bytes, name]) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([Uint8Array.from(atob(bytes), c => c.charCodeAt(0))], name, {type: 'video/mp4'}));
    for (const type of ['dragenter', 'dragover', 'drop'])
        document.querySelector('#graph-canvas').dispatchEvent(
            new DragEvent(type, {dataTransfer: transfer, bubbles: true, clientX: 900, clientY: 700}));
}"""


class Browser:
    """
    ComfyUI's page in Chromium without a window.

    Args:
        url: Address of the server.
        browser: Browser of playwright.
    """

    def __init__(self, url: str, browser: Any) -> None:
        self.url, self.browser = url, browser

    @contextmanager
    def open(self, query: str = "") -> Iterator[tuple["Page", list[str]]]:
        """Yield a page, ready for work, and the list of errors that it reports from now on."""
        page, errors = self.browser.new_page(viewport=VIEWPORT), []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{self.url}/{query}")
        page.wait_for_function("window.app?.vueAppReady && window.app.extensionManager", timeout=300_000)
        page.wait_for_load_state("networkidle", timeout=300_000)
        try:
            yield page, errors
        finally:
            page.close()

    def open_example(self, name: str) -> Any:
        """Open an example workflow as a click in the list of templates does."""
        return self.open(f"?template={name}&source={PACK}")


def wait_for_nodes(page: "Page", number: int) -> list[dict[str, Any]]:
    """Wait until the canvas has this number of nodes, and return what it shows of them."""
    page.wait_for_function(f"app.rootGraph.nodes.length == {number}", timeout=300_000)
    page.wait_for_timeout(1000)  # values of widgets follow
    return page.evaluate(NODES)


def check_example(browser: Browser, server: ComfyUI, file: Path, args: argparse.Namespace) -> Rows:
    """Open an example, run it from the page, and drop the saved clip on an empty page."""
    text = file.read_text(encoding="utf-8")
    expected, pictures = json.loads(text)["nodes"], args.pictures
    only_opens = args.no_adapters and CHECKPOINT in text
    with browser.open_example(file.stem) as (page, errors):
        nodes = wait_for_nodes(page, len(expected))
        unknown = [node["type"] for node in nodes if not node["known"]]
        opened = f"{len(nodes)} nodes, {len(unknown)} unknown; {len(errors)} errors on the page"
        page.keyboard.press("Escape")
        page.evaluate("app.extensionManager.command.execute('Comfy.Canvas.FitView')")
        page.wait_for_timeout(1500)
        canvas = page.screenshot(path=pictures and pictures / f"{file.stem}.png")
        if not only_opens:
            page.evaluate(SET_WIDGETS, SMALL)
            nodes = page.evaluate(NODES)
            clip, message = run_from_page(page, server)
    rows = [(f"{file.stem} opens", opened, not unknown and not errors)]
    if pictures is not None and CHECKPOINT in text:  # its clip is noise
        save_picture(file, Image.open(io.BytesIO(canvas)).convert("RGB").resize((700, 400), Image.Resampling.LANCZOS))
    if only_opens:
        return rows
    if clip is None:
        return [*rows, (f"{file.stem} runs", message, False)]
    with av.open(str(clip)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    rows.append((f"{file.stem} runs", f"{len(frames)} frames of {frames[0].shape[1]} x {frames[0].shape[0]}", True))
    if pictures is not None and CHECKPOINT not in text:
        four = [frames[round(index * (len(frames) - 1) / 3)] for index in range(4)]
        save_picture(file, Image.fromarray(np.vstack([np.hstack(four[:2]), np.hstack(four[2:])])))
    return [*rows, *check_drop(browser, clip, nodes, file.stem)]


def run_from_page(page: "Page", server: ComfyUI) -> tuple[Path | None, str]:
    """Run the workflow of the page; return the clip that it saves, or the message of an error."""
    known = server.get("/history").keys()
    page.evaluate("app.queuePrompt(0)")
    end = time.monotonic() + 60
    while not (new := server.get("/history").keys() - known):
        queue = server.get("/queue")
        if not (queue["queue_running"] or queue["queue_pending"]) and time.monotonic() > end:
            return None, str(page.evaluate("app.lastNodeErrors"))
        time.sleep(1)
    outputs = server.wait(new.pop())
    return next(server.file_of(shown[0]) for shown in outputs.values() if shown), ""


def check_drop(browser: Browser, clip: Path, expected: list[dict[str, Any]], name: str) -> Rows:
    """Drop a clip on an empty canvas, and compare what it restores; read its recipe."""
    with browser.open() as (page, errors):
        page.keyboard.press("Escape")
        page.evaluate("app.rootGraph.clear()")
        page.evaluate(DROP, [base64.b64encode(clip.read_bytes()).decode(), clip.name])
        nodes = wait_for_nodes(page, len(expected))
    recipe = read_metadata(clip)
    different = [node["type"] for node, other in zip(nodes, expected, strict=True) if node != other]
    known = [name for name in ("prompt", "seed", "interpolation", "fps") if name in recipe]
    text = f"{len(nodes)} nodes, {len(different)} differ; {len(errors)} errors; recipe with {', '.join(known)}"
    return [(f"Its clip restores {name} and has a recipe", text, not different and not errors and "fps" in recipe)]


def save_picture(file: Path, image: Image.Image) -> None:
    """Save the picture of an example, under its name."""
    image.save(file.with_suffix(".jpg"), quality=QUALITY)


def make_inputs(server: ComfyUI) -> None:
    """Make the clip and the painting that the example workflows name."""
    workflow = saved(generation(num_frames=16, steps=25))
    clip = server.file_of(server.run(workflow)["4"][0])
    shutil.copy(clip, server.base / "input" / CLIP)
    with av.open(str(clip)) as container:
        next(container.decode(video=0)).to_image().save(server.base / "input" / PAINTING)


def make_checkpoint(server: ComfyUI) -> None:
    """Make a checkpoint of Stable Diffusion 1.5 from random parts, in its own layout."""
    parts = {
        "1": ("UNETLoader", {"unet_name": RANDOM_UNET, "weight_dtype": "default"}),
        "2": ("CLIPLoader", {"clip_name": "random_clip/model.safetensors", "type": "stable_diffusion"}),
        "3": ("VAELoader", {"vae_name": "random_vae/diffusion_pytorch_model.safetensors"}),
        "4": ("CheckpointSave", {"model": ["1", 0], "clip": ["2", 0], "vae": ["3", 0], "filename_prefix": "random"}),
    }
    server.run({node: {"class_type": name, "inputs": inputs} for node, (name, inputs) in parts.items()})
    checkpoints = server.base / "models" / "checkpoints"
    next((server.base / "output").glob("random*.safetensors")).replace(checkpoints / CHECKPOINT)


def make_models(models: Path, with_weights: bool) -> None:
    """Make the parts of a random Stable Diffusion 1.5, or empty files, so that the page lists their names."""
    for file in (models / "checkpoints" / CHECKPOINT, models / ADAPTERS / ADAPTER):
        file.parent.mkdir(parents=True)
        file.touch()
    if not with_weights:
        return
    save_random_model(models)
    (models / ADAPTERS / RANDOM_ADAPTER).rename(models / ADAPTERS / ADAPTER)
    vae = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
    )
    vae.half().save_pretrained(models / "vae" / "random_vae")
    config = CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_attention_heads=12, num_hidden_layers=12)
    CLIPTextModel(config).half().save_pretrained(models / "text_encoders" / "random_clip")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--chromium", default="/usr/bin/chromium", help="browser (default: /usr/bin/chromium)")
    parser.add_argument(
        "--pictures", type=Path, help="folder for screenshots; the pictures of the examples are remade"
    )
    parser.add_argument(
        "--no-adapters", action="store_true", help="only open the examples that need Stable Diffusion 1.5"
    )
    args = parse_arguments(parser)
    from playwright.sync_api import sync_playwright

    runs_adapters = not args.no_adapters
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        base = Path(folder)
        install_packs(base, args.animatediff_evolved)
        make_models(base / "models", runs_adapters)
        chromium = playwright.chromium.launch(executable_path=args.chromium, args=["--no-sandbox"])
        with ComfyUI(args.comfyui.resolve(), base, args.python.absolute(), base / "comfyui.log") as server:
            make_inputs(server)
            if runs_adapters:
                make_checkpoint(server)
            browser = Browser(server.url, chromium)
            files = sorted(EXAMPLES.glob("*.json"))
            rows = print_rows(row for file in files for row in check_example(browser, server, file, args))
            versions = [*describe(args.python, server, args.animatediff_evolved), f"* Chromium {chromium.version}"]
        chromium.close()
    title = "The example workflows of the node pack in ComfyUI's page"
    finish(title, "benchmarks/comfyui_browser.py", versions, rows, args.output)


if __name__ == "__main__":
    main()
