"""Time steps of `train_motion.py` against a straightforward loop with diffusers, alternately in one process.

    python benchmarks/train_step.py --mixed_precision bf16

The straightforward loop encodes its clip and its caption in every step, keeps all weights in float32 under autocast,
and trains every weight of the motion modules, with diffusers' own attention, processors and an AdamW that is not
fused. Both loops use clips in memory; decoding a video comes on top. `train_costs.py` counts the same at the size of
Stable Diffusion 1.5. With --torch_compile, a third loop takes its turn: ours, compiled. On a CPU all loops run on one
thread, and its CPU time counts.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDPMScheduler, MotionAdapter, UNet2DConditionModel, UNetMotionModel
from transformers import AutoTokenizer, CLIPTextModel

from landscape_video.training.objectives.motion_models import (
    checkpoint_layers,
    compile_unet,
    load_motion_unet,
    lower_precision,
)
from landscape_video.training.objectives.motion_objective import motion_losses
from landscape_video.training.objectives.short_attention import use_fast_attention
from landscape_video.training.run.run_summary import LiveBytes
from motion_adapter.build import freeze_image_layers
from pipeline_landscape_video import SHANSHUI_TINY


DTYPES = {"no": torch.float32, "bf16": torch.bfloat16}


class Loops:
    """The loops, and what all of them need. A clip is (num_frames, 3, pixels, pixels) in [-1, 1]."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.device, self.dtype = args, torch.device(args.device), DTYPES[args.mixed_precision]
        self.scheduler = DDPMScheduler.from_pretrained(args.model, subfolder="scheduler")
        self.tokenizer = AutoTokenizer.from_pretrained(args.model, subfolder="tokenizer")
        self.vae = AutoencoderKL.from_pretrained(args.model, subfolder="vae").to(self.device).requires_grad_(False)
        text_encoder = CLIPTextModel.from_pretrained(args.model, subfolder="text_encoder").to(self.device)
        self.text_encoder = text_encoder.requires_grad_(False)
        self.clips = torch.rand(args.batch_size, args.num_frames, 3, args.pixels, args.pixels, device=self.device)

    @torch.no_grad()
    def encode(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents, (batch, channels, num_frames, height, width), and prompt embeddings, (batch, tokens, dim)."""
        latents = self.vae.encode(self.clips.flatten(0, 1) * 2 - 1).latent_dist.mode() * self.vae.config.scaling_factor
        tokens = self.tokenizer(["a boat"] * len(self.clips), padding="max_length", return_tensors="pt").input_ids
        prompt_embeds = self.text_encoder(tokens.to(self.device))[0]
        return latents.unflatten(0, self.clips.shape[:2]).transpose(1, 2).contiguous(), prompt_embeds

    def loss(self, unet: torch.nn.Module, latents: torch.Tensor, prompt_embeds: torch.Tensor) -> torch.Tensor:
        """The diffusion loss at the middle of the schedule."""
        timesteps, noise = torch.full((len(latents),), 500, device=self.device), torch.randn_like(latents)
        return motion_losses(unet, None, self.scheduler, latents, prompt_embeds, noise, timesteps)["total"]

    def ours(self, compiled: bool = False) -> Callable[[], None]:
        """A step of `train_motion.py` on cached latents and prompt embeddings."""
        unet = load_motion_unet(str(self.args.model)).to(self.device).train()
        parameters = [parameter for _, parameter in freeze_image_layers(unet)]
        lower_precision(unet, self.dtype, self.device)
        use_fast_attention(unet, self.device, self.dtype)
        if self.args.gradient_checkpointing:
            checkpoint_layers(unet, self.args.gradient_checkpointing)
        if compiled:
            compile_unet(unet)
        latents, prompt_embeds = self.encode()
        optimizer = torch.optim.AdamW(parameters, lr=1e-5, fused=True)
        return partial(update, optimizer, partial(self.loss, unet, latents, prompt_embeds.to(self.dtype)))

    def straightforward(self) -> Callable[[], None]:
        """A step of the straightforward loop."""
        image_unet = UNet2DConditionModel.from_pretrained(self.args.model, subfolder="unet")
        config = image_unet.config
        adapter = MotionAdapter(
            block_out_channels=config.block_out_channels,
            motion_layers_per_block=config.layers_per_block,
            motion_norm_num_groups=config.norm_num_groups,
            use_motion_mid_block=False,
        )
        unet = UNetMotionModel.from_unet2d(image_unet, adapter).to(self.device).train()
        unet.freeze_unet2d_params()
        if self.args.gradient_checkpointing:
            unet.enable_gradient_checkpointing()
        parameters = [parameter for parameter in unet.parameters() if parameter.requires_grad]

        def loss() -> torch.Tensor:
            with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
                latents, prompt_embeds = self.encode()
                return self.loss(unet, latents.float(), prompt_embeds)

        return partial(update, torch.optim.AdamW(parameters, lr=1e-5, foreach=False), loss)


def update(optimizer: torch.optim.Optimizer, loss: Callable[[], torch.Tensor]) -> None:
    """One training step."""
    loss().backward()
    torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 1.0)
    optimizer.step()
    optimizer.zero_grad()


def seconds_of(step: Callable[[], None], device: torch.device) -> float:
    """Duration of a step."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time  # a CPU may be shared
    start = clock()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def peak_bytes(step: Callable[[], None], device: torch.device) -> int:
    """Peak size of the tensors made in a step; with CUDA, of everything that is allocated, weights included."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        step()
        return torch.cuda.max_memory_allocated()
    with LiveBytes() as live:
        step()
    return live.peak


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    model_help = "folder of a pipeline (default: the bundled shanshui-tiny)"
    parser.add_argument("--model", type=Path, default=SHANSHUI_TINY, help=model_help)
    for name, default, text in (
        ("batch_size", 2, "clips in a step"),
        ("num_frames", 12, "frames of a clip"),
        ("pixels", 128, "height and width of a frame"),
        ("rounds", 8, "timed steps of each loop"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{text} (default: {default})")
    parser.add_argument(
        "--mixed_precision", choices=tuple(DTYPES), default="bf16", help="precision of training (default: bf16)"
    )
    parser.add_argument(
        "--gradient_checkpointing", choices=("attention", "all"), help="layers to recompute (default: none)"
    )
    parser.add_argument("--torch_compile", action="store_true", help="also time our loop compiled (default: no)")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=device, help="where to compute (default: cuda if available, else cpu)")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    torch.manual_seed(0)
    loops = Loops(args)
    if loops.device.type == "cpu":
        torch.set_num_threads(1)  # the CPU time of several threads would add up
    steps = {"straightforward": loops.straightforward(), "ours": loops.ours()}
    if args.torch_compile:
        steps["ours, compiled"] = loops.ours(compiled=True)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(args.rounds + 1):
        for name, step in steps.items():
            times[name].append(seconds_of(step, loops.device))
    # The first step allocates and compiles.
    medians = {name: statistics.median(seconds[1:]) for name, seconds in times.items()}
    kind = torch.cuda.get_device_name() if loops.device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(
        f"{kind}, torch {torch.__version__}, {args.mixed_precision}, batches of {args.batch_size} clips of "
        f"{args.num_frames} frames of {args.pixels} pixels, seed 0, median of {args.rounds} alternating rounds"
    )
    for name, step in steps.items():
        print(
            f"{name:16} {args.batch_size / medians[name]:7.2f} clips a second, "
            f"{medians['straightforward'] / medians[name]:.2f} times the first line; "
            f"first step {times[name][0]:.0f} s, "
            f"peak {peak_bytes(step, loops.device) / 2**30:.2f} GiB"
        )


if __name__ == "__main__":
    main()
