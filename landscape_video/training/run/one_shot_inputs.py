"""Load what `tune_one_shot.py` starts from: the models and the clip with its depth."""

from pathlib import Path

import cv2
import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel, UNetMotionModel
from transformers import AutoTokenizer, CLIPTextModel

from landscape_video.generation.depth import load_depth
from landscape_video.generation.depth_member import WEIGHTS, load_depth_member
from landscape_video.generation.models import load_motion_adapter
from landscape_video.training.objectives.one_shot_recipe import TuningModels
from landscape_video.training.run.one_shot_tuning import prepare_clip
from landscape_video.training.settings.inputs import MOTION_ADAPTER
from landscape_video.training.settings.one_shot import OneShotTraining
from motion_adapter.build import create_motion_adapter
from pipeline_landscape_video.landscape_motion_attention import install_motion_config
from pipeline_landscape_video.video_io import read_video


NO_DEPTH = "none"


def load_models(settings: OneShotTraining, dtype: torch.dtype, device: torch.device) -> TuningModels:
    """Load the parts of a pipeline from folders or the Hub. An image model without an adapter gets one without layers.

    Raises:
        ValueError: The depth member belongs to another model.
    """
    model, revision = settings.model.source
    source = {"revision": revision, "dtype": dtype}
    image_unet = UNet2DConditionModel.from_pretrained(model, subfolder="unet", **source)
    given = settings.model.motion_adapter_name_or_path or Path(model, MOTION_ADAPTER)
    if settings.model.motion_adapter_name_or_path is not None or given.is_dir():
        adapter = load_motion_adapter(given, dtype)
    else:
        adapter = create_motion_adapter(
            image_unet, "full", motion_num_attention_heads=1, motion_transformer_layers_per_block=0
        )
    unet = UNetMotionModel.from_unet2d(image_unet, adapter)
    install_motion_config(unet, adapter.config)
    member = settings.model.depth_member or Path(model, "depth")
    if settings.clip.depth != NO_DEPTH and (settings.model.depth_member or (member / WEIGHTS).is_file()):
        load_depth_member(unet, member)
    return TuningModels(
        unet.to(device, dtype),
        AutoencoderKL.from_pretrained(model, subfolder="vae", **source).to(device),
        CLIPTextModel.from_pretrained(model, subfolder="text_encoder", **source).to(device),
        AutoTokenizer.from_pretrained(model, subfolder="tokenizer", revision=revision),
        DDIMScheduler.from_pretrained(model, subfolder="scheduler", revision=revision),
    )


def load_clip(settings: OneShotTraining, models: TuningModels) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Read the clip at the size of the model, with its depth if the model reads it; see `prepare_clip`.

    Raises:
        ValueError: The clip or its depth cannot be read, or does not fit.
    """
    clip = settings.clip
    video = read_video(clip.video).frames
    scale = 2 ** (len(models.vae.config.block_out_channels) - 1)
    shorter = clip.resolution or models.unet.config.sample_size * scale
    factor = shorter / min(video.shape[1:3])
    if factor != 1:
        height, width = (round(side * factor) for side in video.shape[1:3])
        video = np.stack([cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA) for frame in video])
    depth = None
    if models.reads_depth:
        if clip.depth == NO_DEPTH:
            raise ValueError("`depth` must not be none: this model reads depth.")
        depth = load_depth(clip.depth, video, clip.video, models.unet.device)
    return prepare_clip(models, video, depth, settings.tuning.num_frames)
