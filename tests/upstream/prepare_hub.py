"""Write an offline Hub cache with small stand-ins for the few repositories that diffusers' AnimateDiff tests ask for.

python prepare_hub.py HF_HOME
"""

import sys
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDPMPipeline,
    DDPMScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    UNet2DModel,
)
from transformers import CLIPTextConfig, CLIPTextModel

from tiny_models import build_tokenizer


COMMIT = "0" * 40


def snapshot(hf_home: Path, repo_id: str) -> Path:
    """Return the folder that a download of `repo_id` would fill."""
    repo = hf_home / "hub" / f"models--{repo_id.replace('/', '--')}"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(COMMIT)
    return repo / "snapshots" / COMMIT


def stable_diffusion() -> StableDiffusionPipeline:
    """Return a pipeline with the component sizes of the tests, and the scheduler of Stable Diffusion 1.5."""
    sizes = {"block_out_channels": (8, 8), "norm_num_groups": 2}
    tokenizer = build_tokenizer()
    return StableDiffusionPipeline(
        unet=UNet2DConditionModel(
            **sizes,
            layers_per_block=2,
            sample_size=8,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=8,
        ),
        scheduler=PNDMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, skip_prk_steps=True
        ),
        vae=AutoencoderKL(
            **sizes, down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2
        ),
        text_encoder=CLIPTextModel(
            CLIPTextConfig(
                hidden_size=8,
                intermediate_size=37,
                num_attention_heads=4,
                num_hidden_layers=5,
                vocab_size=len(tokenizer),
                eos_token_id=tokenizer.eos_token_id,
            )
        ),
        tokenizer=tokenizer,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def main(hf_home: Path) -> None:
    torch.manual_seed(0)
    build_tokenizer().save_pretrained(snapshot(hf_home, "hf-internal-testing/tiny-random-clip"))
    stable_diffusion().save_pretrained(snapshot(hf_home, "hf-internal-testing/tinier-stable-diffusion-pipe"))
    unet = UNet2DModel(
        sample_size=32,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )
    DDPMPipeline(unet=unet, scheduler=DDPMScheduler()).save_pretrained(snapshot(hf_home, "google/ddpm-cifar10-32"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
