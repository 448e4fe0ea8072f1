"""Train the image model of shanshui-tiny: a small text-conditioned UNet on the latents of single frames."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from safetensors.torch import load_file
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from landscape_video.files import read_json_lines
from shanshui.renderer.scene import CHOICES, MOVING
from shanshui.stages.family_run import FamilyRun, build_scheduler, build_unet
from shanshui.stages.timed_training import train_for
from shanshui.stages.training_data import CAPTIONS_PER_CLIP, attribute_labels, training_clips


TEXT_DROPOUT = 0.1  # share of the captions replaced with the empty prompt, for classifier-free guidance
MOTION_WEIGHT = 0.03
IGNORED = -100  # label that `F.cross_entropy` ignores


class UNetWithMotionHeads(nn.Module):
    """The UNet with heads that read the moving attributes from its mid block and second up block.

    The heads serve training only. Motion modules see no text, only the features of these layers, which are frozen by
    then. A single frame can be denoised without the words about motion, and without this loss the layers learn to
    ignore them.
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.unet = unet
        *_, second_up, mid = unet.config.block_out_channels  # channels of the two levels
        self.heads = nn.ModuleList(
            nn.ModuleDict({name: nn.Linear(width, len(CHOICES[name])) for name in MOVING})
            for width in (mid, second_up)
        )
        self._features: list[torch.Tensor] = []
        for block in (unet.mid_block, unet.up_blocks[1]):
            block.register_forward_hook(lambda module, args, output: self._features.append(output))

    def forward(self, latents: torch.Tensor, timesteps: torch.Tensor, text: torch.Tensor) -> tuple:
        """Return the prediction, and per level the logits of the heads by attribute."""
        self._features.clear()
        prediction = self.unet(latents, timesteps, encoder_hidden_states=text).sample
        pooled = [features.mean(dim=(2, 3)) for features in self._features]
        logits = [{name: head(x) for name, head in heads.items()} for heads, x in zip(self.heads, pooled, strict=True)]
        return prediction, logits


def train_image_unet(run: FamilyRun) -> None:
    """Train the UNet to predict v from noisy latents and captions, and save it."""
    latents = load_file(run.run_dir / "latents" / "latents-00000.safetensors")["latents"]
    rows = read_json_lines(run.run_dir / "latents" / "captions.jsonl")
    prompt_embeds, empty_prompt = encode_captions(run, [[row["text"], *row["texts"]] for row in rows])
    labels = attribute_labels(training_clips(run)[1], run.device)
    batch_size, device = run.batch_scale * 32, run.device
    torch.manual_seed(0)
    unet = build_unet()
    if device.type == "cpu":
        # The backward pass of fused attention is slow on a CPU: it takes a third of a step.
        unet.set_attn_processor(AttnProcessor())
    model = UNetWithMotionHeads(unet).to(device)
    predict = torch.compile(model) if run.compile else model
    scheduler = build_scheduler()

    def compute_losses(generator: torch.Generator, fraction: float) -> dict[str, torch.Tensor]:
        def integers(high: int) -> torch.Tensor:
            return torch.randint(high, (batch_size,), generator=generator, device=device)

        clips, frames = integers(len(latents)), integers(latents.shape[1])
        timesteps = integers(scheduler.config.num_train_timesteps)
        clean = latents[clips.cpu(), frames.cpu()].to(device).float()
        noise = torch.randn(clean.shape, generator=generator, device=device)
        wordings = np.random.default_rng(generator.initial_seed()).integers(CAPTIONS_PER_CLIP, size=batch_size)
        text = prompt_embeds[clips.tolist(), wordings.tolist()].to(device).float()
        dropped = torch.rand(batch_size, generator=generator, device=device) < TEXT_DROPOUT
        text = torch.where(dropped[:, None, None], empty_prompt, text)
        prediction, logits = predict(scheduler.add_noise(clean, noise, timesteps), timesteps, text)
        diffusion = F.mse_loss(prediction, scheduler.get_velocity(clean, noise, timesteps))
        # A dropped caption says nothing about the motion.
        wanted = {name: labels[name][clips].masked_fill(dropped, IGNORED) for name in MOVING}
        motion = sum(F.cross_entropy(level[name], wanted[name]) / len(MOVING) for level in logits for name in MOVING)
        return {"loss": diffusion + MOTION_WEIGHT * motion, "diffusion": diffusion, "motion_heads": motion}

    train_for(run, "unet", model, compute_losses, learning_rate=5e-4, weight_decay=1e-2, seed=2)
    unet.save_pretrained(run.model("unet"))


@torch.no_grad()
def encode_captions(run: FamilyRun, captions: Sequence[Sequence[str]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the prompt embeddings of the captions of all clips, float16 (clips, captions, tokens, dim), on the CPU,
    and those of the empty prompt, (1, tokens, dim)."""
    tokenizer = CLIPTokenizer.from_pretrained(run.model("clip"))
    text_encoder = CLIPTextModel.from_pretrained(run.model("text")).to(run.device).eval()

    def encode(texts: Sequence[str]) -> torch.Tensor:
        tokens = tokenizer(list(texts), padding="max_length", truncation=True, return_tensors="pt").input_ids
        return text_encoder(tokens.to(run.device))[0]

    return torch.stack([encode(texts).half().cpu() for texts in captions]), encode([""])
