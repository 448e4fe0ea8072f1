"""Settings, folders, logs and models of one run of `train_tiny.py`, shared by all its stages.

The models have what Stable Diffusion 1.5 has, in miniature.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel, UNet2DModel
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel, CLIPTokenizer, CLIPVisionConfig

from pipeline_landscape_video.landscape_sampling import SAMPLING_ENTRY
from shanshui.renderer.scene import SIZE


LATENT_CHANNELS = 8
MAX_TOKENS = 77
TEXT_WIDTH = 192
# Recommended sampling, stored with the scheduler. A model this small flickers at a guidance scale of 8. With eta=1,
# fresh noise in each step corrects drift; in image to video it would slow the camera.
SAMPLING = {"text": {"guidance_scale": 2.0, "eta": 1.0}, "image": {"guidance_scale": 4.0, "eta": 0.0}}


def resumed_seconds(log: list[dict]) -> float:
    """Return the training time of a log whose "seconds" start from zero at each resumption."""
    seconds = [line["seconds"] for line in log] + [0.0]
    return sum(last for last, after in pairwise(seconds) if after < last)


@dataclass(frozen=True)
class FamilyRun:
    """Settings of a run.

    Attributes:
        run_dir: Folder of the rendered clips, logs, checkpoints and models.
        export_dir: Folder that the finished family is written to.
        clips: Number of clips rendered for training, and again as many for the image retention branch.
        workers: Rendering processes; None for one per core, 0 to render in this process.
        minutes: Training time of each stage that trains.
        motion_steps: Steps over which the learning rate of the motion adapter falls to zero.
        picture_steps: Steps of the image retention branch on single frames.
        retention_steps: Steps over which the learning rate of the branch falls to zero on whole clips.
        batch_scale: Factor on every batch size; 1 suits a CPU.
        mixed_precision: "no" or "bf16".
        compile: Whether to compile the UNets and the branch.
        device: Device that every stage computes on.
    """

    run_dir: Path
    export_dir: Path
    clips: int
    workers: int | None
    minutes: Mapping[str, float]
    motion_steps: int
    picture_steps: int
    retention_steps: int
    batch_scale: int
    mixed_precision: str
    compile: bool
    device: torch.device

    def model(self, stage: str) -> Path:
        """Folder that a stage saves its model to."""
        return self.run_dir / stage / "model"

    def autocast(self) -> torch.autocast:
        """Context that computes in bfloat16 where `mixed_precision` asks for it."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed_precision == "bf16")


def computes_bfloat16_fast(device: str) -> bool:
    """Whether bfloat16 is faster than float32: on GPUs, and on CPUs with AMX matrix units."""
    return device.startswith("cuda") or torch.cpu.get_capabilities().get("amx_bf16", False)


def build_vae() -> AutoencoderKL:
    """Return an autoencoder that turns 128 x 128 pixels into 16 x 16 latents of 8 channels.

    The number of groups is small: the finest level has 16 channels, and a norm over two of them would remove the color
    of a wash.
    """
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 64, 128),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=2,
        mid_block_add_attention=False,
        sample_size=SIZE,
    )


def build_unet() -> UNet2DConditionModel:
    """Return a UNet of three levels with text cross-attention on the two lower ones."""
    return UNet2DConditionModel(
        sample_size=SIZE // 8,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(64, 128, 160),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,  # in this class, the number of heads
        norm_num_groups=16,
    )


def build_depth_model() -> UNet2DModel:
    """Return a small network that predicts depth from a frame of half the size, as fine as latents need it.

    Attention at its coarsest level sees the whole frame. Its input for a timestep is always 0.
    """
    return UNet2DModel(
        sample_size=SIZE // 2,
        in_channels=3,
        out_channels=1,
        down_block_types=("DownBlock2D",) * 4,
        up_block_types=("UpBlock2D",) * 4,
        block_out_channels=(8, 16, 24, 32),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=8,
    )


def build_clip(vocab_size: int, bos_token_id: int, eos_token_id: int) -> CLIPModel:
    """Return a CLIP model with towers of equal width; its text tower, trained further, encodes the prompts."""
    size = {"hidden_size": TEXT_WIDTH, "intermediate_size": 3 * TEXT_WIDTH, "num_hidden_layers": 4}
    text = CLIPTextConfig(
        vocab_size=vocab_size,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        bos_token_id=bos_token_id,
        eos_token_id=eos_token_id,
        pad_token_id=eos_token_id,
        projection_dim=TEXT_WIDTH,
        **size,
    )
    vision = CLIPVisionConfig(num_attention_heads=4, image_size=SIZE, patch_size=16, projection_dim=TEXT_WIDTH, **size)
    return CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=TEXT_WIDTH))


def build_scheduler() -> DDIMScheduler:
    """Return the scheduler: the linear betas of NADM with zero terminal SNR, and v-prediction.

    The betas are rescaled so that the last timestep contains no signal (Lin et al., "Common Diffusion Noise Schedules
    and Sample Steps are Flawed", 2023). Without that, a signal of 0.04 remains, and over all frames of a clip it
    reveals which way the camera moves. Motion modules then learn to read the motion there instead of in the caption,
    but a sampler starts from pure noise, in which there is no motion to read.
    """
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="linear",
        clip_sample=False,
        steps_offset=1,
        timestep_spacing="trailing",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
    )
    scheduler.register_to_config(**{SAMPLING_ENTRY: SAMPLING})
    return scheduler


def load_image_model(run: FamilyRun) -> dict:
    """Load the trained parts of the image model, by their names in a pipeline."""
    return {
        "text_encoder": CLIPTextModel.from_pretrained(run.model("text")),
        "tokenizer": CLIPTokenizer.from_pretrained(run.model("clip")),
        "vae": AutoencoderKL.from_pretrained(run.model("vae")),
        "unet": UNet2DConditionModel.from_pretrained(run.model("unet")),
        "scheduler": build_scheduler(),
    }


def save_image_model(run: FamilyRun) -> None:
    """Save the image model in the folder layout of Stable Diffusion; the training scripts start from it."""
    for name, part in load_image_model(run).items():
        part.save_pretrained(run.run_dir / "base" / name)
