"""Compare the speed of sampling with `AnimateDiffPipeline` of diffusers on the same weights, and write docs/speed.md.

    python benchmarks/inference.py

Rows that are compared take turns in one process. On a CPU they run on one thread, and its CPU time counts, because the
machine may be shared; with CUDA, events on the GPU count. FLOP are counted at the size of Stable Diffusion 1.5, with
weights that have no values. Start-up is measured in processes of its own.
"""

import argparse
import collections
import copy
import functools
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from unittest import mock

import torch
from diffusers import AnimateDiffPipeline, MotionAdapter, UNet2DConditionModel, UNetMotionModel
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from landscape_video.files import write_text
from motion_adapter.markdown import markdown_table
from pipeline_landscape_video import SHANSHUI_TINY, LandscapeVideoPipeline, install_sparse_causal_attention
from pipeline_landscape_video.landscape_acceleration import Acceleration
from pipeline_landscape_video.landscape_fast_layers import FastLayers
from pipeline_landscape_video.quiet_loading import less_chatter


PAGE = Path(__file__).resolve().parents[1] / "docs" / "speed.md"
PROMPT = "mist drifting over layered mountains, a boat on a calm lake"
STARTUP = """
import os, sys, time
import torch
after_torch = time.process_time()
def end(module, args):
    if type(module).__name__ == "UNetMotionModel":
        print(after_torch, time.process_time(), flush=True)
        os._exit(0)
torch.nn.modules.module.register_module_forward_pre_hook(end)
from landscape_video.cli.main import main
sys.argv = ["landscape-video", "generate", "mist", "--output", sys.argv[1]]
main()
"""
Times = dict[str, list[float]]


def build_pipelines(device: torch.device) -> dict[str, AnimateDiffPipeline]:
    """Load shanshui-tiny as a stock pipeline and as ours, in float32 and bfloat16; `optimized` ones share weights."""
    with less_chatter():
        ours = LandscapeVideoPipeline.from_pretrained(SHANSHUI_TINY).to(device)
        unet = UNetMotionModel.from_unet2d(
            UNet2DConditionModel.from_pretrained(SHANSHUI_TINY / "unet"),
            MotionAdapter.from_pretrained(SHANSHUI_TINY / "motion_adapter"),
        )
        stock = AnimateDiffPipeline(**ours.components | {"unet": unet.eval().to(device)})
        pipes = {"stock, float32": stock, "ours, float32": ours}
        pipes["optimized, float32"] = LandscapeVideoPipeline(**ours.components)
        half = {name: part for name, part in ours.components.items() if not isinstance(part, nn.Module)}
        half |= {
            name: copy.deepcopy(part).to(torch.bfloat16)
            for name, part in ours.components.items()
            if isinstance(part, nn.Module)
        }
        pipes["ours, bfloat16"] = LandscapeVideoPipeline(**half)
        pipes["optimized, bfloat16"] = LandscapeVideoPipeline(**half)
    for name, pipe in pipes.items():
        pipe.set_progress_bar_config(disable=True)
        if "optimized" in name:
            pipe.optimize()
    return pipes


def clock(device: torch.device) -> float:
    if device.type != "cuda":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def measure(rounds: int, device: torch.device, runs: dict[str, Callable[[], None]]) -> Times:
    """Time runs that take turns, after one round that is not counted."""
    times: Times = {name: [] for name in runs}
    for _ in range(rounds + 1):
        for name, run in runs.items():
            start = clock(device)
            run()
            times[name].append(clock(device) - start)
    return {name: seconds[1:] for name, seconds in times.items()}


def measure_steps(pipes: dict[str, AnimateDiffPipeline], rounds: int, device: torch.device) -> Times:
    """Time one UNet call with guidance. The accelerated call is not the first of its clip, as most are not."""
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 8, 16, 16, 16, generator=generator).repeat(2, 1, 1, 1, 1)
    text = torch.randn(2, 77, 192, generator=generator).repeat_interleave(16, dim=0)
    runs, accelerated = {}, []
    for name, pipe in pipes.items():
        inputs = (latents.to(device, pipe.unet.dtype), torch.tensor(500), text.to(device, pipe.unet.dtype))
        unet = pipe.unet
        if "optimized" in name:
            unet = copy.deepcopy(unet)  # the plain rows share its weights
            accelerated.append(Acceleration(unet, FastLayers()).__enter__())
        runs[name] = functools.partial(unet, *inputs)
    return measure(rounds, device, runs)


def measure_decoding(pipes: dict[str, AnimateDiffPipeline], rounds: int, device: torch.device) -> Times:
    """Time the decoding of 16 frames of 128 x 128."""
    latents = torch.randn(16, 8, 16, 16, generator=torch.Generator().manual_seed(0))

    def decode(pipe: AnimateDiffPipeline) -> None:
        with pipe.accelerated_models(FastLayers):
            pipe.vae.decode(latents.to(device, pipe.vae.dtype))

    runs = {name: functools.partial(decode, pipe) for name, pipe in pipes.items() if "stock" not in name}
    return measure(rounds, device, runs)


def sample_clip(pipe: LandscapeVideoPipeline) -> torch.Tensor:
    """Return a clip with the model's own settings, `(frames, 3, height, width)` in [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    return pipe(PROMPT, generator=generator, output_type="pt", interpolate=False).frames[0].float()


def measure_psnr(pipes: dict[str, AnimateDiffPipeline]) -> dict[str, str]:
    """Return PSNR in dB over a whole clip, to our clip before `optimize()` in float32."""
    clips = {name: sample_clip(pipe) for name, pipe in pipes.items() if "stock" not in name}
    expected = clips["ours, float32"]
    errors = {name: (clip - expected).double().square().mean() for name, clip in clips.items()}
    return {name: f"{-10 * torch.log10(error):.1f}" if error else "equal" for name, error in errors.items()}


def count_flop(mode: str, accelerated: bool) -> float:
    """Count the TFLOP of a step at the size of Stable Diffusion 1.5: 16 frames of 256 x 256 with guidance."""
    with torch.device("meta"), less_chatter():
        image_unet = UNet2DConditionModel(cross_attention_dim=768, sample_size=64)
        adapter = MotionAdapter(motion_max_seq_length=32, use_motion_mid_block=False)
        unet = UNetMotionModel.from_unet2d(image_unet, adapter)
        inputs = (torch.empty(2, 4, 16, 32, 32), torch.tensor(0), torch.empty(32, 77, 768))
    install_sparse_causal_attention(unet, mode)
    if not accelerated:
        with FlopCounterMode(display=False) as counter:
            unet(*inputs)
        return counter.get_total_flops() / 1e12
    # These tensors have no values to compare: both guidance terms see the same latents, all frames the same text.
    with mock.patch("torch.equal", return_value=True), Acceleration(unet, FastLayers()):
        unet(*inputs)
        with FlopCounterMode(display=False) as counter:
            unet(*inputs)  # a step after the first of a clip
    return counter.get_total_flops() / 1e12


def measure_startup(rounds: int, output: Path) -> tuple[float, float]:
    """Return CPU seconds of `import torch`, and of `generate` until its first step with that import; best of each."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", STARTUP, str(output)]
    ends = []
    for _ in range(rounds):
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        ends.append([float(word) for word in result.stdout.split()[-2:]])
    return min(one[0] for one in ends), min(one[1] for one in ends)


def list_imports(output: Path, count: int = 10) -> list[tuple[str, float]]:
    """Return the packages whose own modules take longest to import before the first step, with seconds."""
    command = [sys.executable, "-X", "importtime", "-c", STARTUP, str(output)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds: dict[str, float] = collections.defaultdict(float)
    for microseconds, name in re.findall(r"import time: +(\d+) \| +\d+ \| +(\S+)", result.stderr):
        package = name.split(".")[0]
        if package == "torch" and name.split(".")[1:2] in (["_dynamo"], ["_inductor"], ["distributed"]):
            package = ".".join(name.split(".")[:2])
        seconds[package] += int(microseconds) / 1e6
    return sorted(seconds.items(), key=lambda pair: -pair[1])[:count]


def speed_table(times: Times, psnr: dict[str, str] | None = None) -> str:
    """Tabulate how many times as fast each row is as the first one."""
    baseline = next(iter(times.values()))
    rows = []
    for name, seconds in times.items():
        fastest, typical = (f"{part(baseline) / part(seconds):.2f}" for part in (min, statistics.median))
        rows.append([name, fastest, typical, *([psnr.get(name, "")] if psnr is not None else [])])
    return markdown_table(["", "speed, fastest runs", "speed, medians", *([] if psnr is None else ["PSNR, dB"])], rows)


def describe_machine(device: torch.device, rounds: int) -> str:
    """Name what the figures depend on."""
    name = platform.processor() or platform.machine()
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    elif Path("/proc/cpuinfo").is_file():
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        name = re.search(r"model name\s*: (.*)", text)[1]
        flags = set(re.search(r"flags\s*: (.*)", text)[1].split())
        name += "".join(f", {'with' if flag in flags else 'without'} {flag}" for flag in ("avx512_bf16", "amx_bf16"))
    versions = ", ".join(f"{package} {version(package)}" for package in ("torch", "diffusers", "transformers"))
    return f"{name}, one thread; {versions}; seed 0, {rounds} rounds"


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12, help="timed runs of each row (default: 12)")
    parser.add_argument("--page", type=Path, default=PAGE, help=f"page to update (default: {PAGE.name})")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=device, help="where to compute (default: cuda if available, else cpu)")
    return parser.parse_args()


def replace_blocks(page: str, blocks: dict[str, str]) -> str:
    """Replace what is between `<!-- name -->` and `<!-- end -->` for each block."""
    for name, block in blocks.items():
        pattern = rf"(<!-- {name} -->\n).*?(\n<!-- end -->)"
        page, count = re.subn(pattern, lambda match, block=block: match[1] + block + match[2], page, flags=re.DOTALL)
        if count != 1:
            raise ValueError(f"`page` must have one block {name!r}, got {count}.")
    return page


@torch.no_grad()
def main() -> None:
    args = parse_args()
    device = torch.device(args.device)
    if device.type == "cpu":
        torch.set_num_threads(1)  # the CPU time of several threads would add up
    pipes = build_pipelines(device)
    flop = [
        [mode, f"{count_flop(mode, accelerated=False):.2f}", f"{count_flop(mode, accelerated=True):.2f}"]
        for mode in ("previous", "full")
    ]
    output = args.page.with_suffix(".mp4")  # never written: the process ends at its first step
    torch_seconds, first_step = measure_startup(3, output)
    imports = list_imports(output)
    total = sum(seconds for _, seconds in imports)
    blocks = {
        "machine": describe_machine(device, args.rounds),
        "steps": speed_table(measure_steps(pipes, args.rounds, device), measure_psnr(pipes)),
        "decoding": speed_table(measure_decoding(pipes, args.rounds, device)),
        "flop": markdown_table(["mode of sparse-causal attention", "stock, TFLOP", "optimized, TFLOP"], flop),
        "startup": f"{first_step / torch_seconds:.1f} times the CPU time of `import torch`.",
        "imports": markdown_table(["modules", "share"], [[name, f"{part / total:.0%}"] for name, part in imports]),
    }
    write_text(args.page, replace_blocks(args.page.read_text(encoding="utf-8"), blocks))
    print("\n\n".join(blocks.values()))


if __name__ == "__main__":
    main()
