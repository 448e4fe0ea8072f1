"""Fit the linear map from latents to colors that previews use, and store it with the model.

    python training/shanshui/fit_preview.py

writes `latent_rgb.json` into the folder of the bundled model: the map, and its fit on held-out
rendered frames.
"""

import argparse
import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from einops import rearrange

from landscape_video.files import hash_file, write_json
from landscape_video.generation.latent_preview import LATENT_RGB, fit_latent_rgb, measure_fit
from pipeline_landscape_video import SHANSHUI_TINY
from shanshui.renderer.dataset import scene_of
from shanshui.renderer.rendering import render_clip


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", type=Path, default=SHANSHUI_TINY, help="folder of the model (default: the bundled model)")
    add("--scenes", type=int, default=400, help="scenes to render, a fifth of them held out (default: %(default)s)")
    add("--seed", type=int, default=11, help="seed of the scenes (default: %(default)s)")
    return parser.parse_args(arguments)


@torch.no_grad()
def main(arguments: list[str] | None = None) -> None:
    args = parse_args(arguments)
    if args.scenes < 10:
        sys.exit(f"--scenes must be at least 10, got {args.scenes}.")
    vae = AutoencoderKL.from_pretrained(args.model / "vae")
    frames, latents = [], []
    for index in range(args.scenes):
        clip = render_clip(scene_of(index, args.seed, fine_motifs=False), times=(0.0, 2.0))
        pixels = rearrange(torch.from_numpy(clip), "frames height width rgb -> frames rgb height width") / 255
        frames.append(pixels)
        latents.append(vae.encode(pixels * 2 - 1).latent_dist.mean * vae.config.scaling_factor)
    held_out = args.scenes // 5
    preview = fit_latent_rgb(torch.cat(latents[held_out:]), torch.cat(frames[held_out:]))
    fit = measure_fit(preview, torch.cat(latents[:held_out]), torch.cat(frames[:held_out]))
    write_json(
        args.model / LATENT_RGB,
        {
            "weight": preview.weight.tolist(),
            "bias": preview.bias.tolist(),
            "fit": {
                **fit,
                "scenes": args.scenes,
                "held_out_scenes": held_out,
                "seed": args.seed,
                "vae_sha256": hash_file(args.model / "vae" / "diffusion_pytorch_model.safetensors")[:16],
                "torch": torch.__version__,
            },
        },
    )
    print(f"R2 of red, green, blue: {', '.join(f'{value:.3f}' for value in fit['r_squared'])}; RMSE {fit['rmse']:.4f}")


if __name__ == "__main__":
    main()
