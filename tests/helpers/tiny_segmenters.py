"""Save small SAM and SAM 2 models of transformers with random weights, with their processors."""

from pathlib import Path

import torch


def build_sam(directory: Path) -> Path:
    """Save an untrained SAM for images of 64 x 64."""
    from transformers import SamConfig, SamImageProcessor, SamModel, SamProcessor

    torch.manual_seed(0)
    vision = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "output_channels": 16}
    vision |= {"image_size": 64, "patch_size": 16, "window_size": 2, "global_attn_indexes": [0], "mlp_dim": 64}
    prompt = {"hidden_size": 16, "image_size": 64, "patch_size": 16, "image_embedding_size": 4}
    decoder = {"hidden_size": 16, "mlp_dim": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    decoder |= {"iou_head_hidden_dim": 16, "iou_head_depth": 2}
    config = SamConfig(
        vision_config={**vision, "num_pos_feats": 8},
        prompt_encoder_config={**prompt, "mask_input_channels": 4},
        mask_decoder_config=decoder,
    )
    SamModel(config).save_pretrained(directory)
    sides = {"size": {"longest_edge": 64}, "pad_size": {"height": 64, "width": 64}}
    sides |= {"mask_size": {"longest_edge": 16}, "mask_pad_size": {"height": 16, "width": 16}}
    SamProcessor(SamImageProcessor(**sides)).save_pretrained(directory)
    return directory


def build_sam2(directory: Path) -> Path:
    """Save an untrained SAM 2 for videos of 128 x 128. Object pointers need a width above that of the memory, 64."""
    from transformers import (
        Sam2ImageProcessor,
        Sam2VideoConfig,
        Sam2VideoModel,
        Sam2VideoProcessor,
        Sam2VideoVideoProcessor,
    )

    torch.manual_seed(0)
    side, width = 128, 128
    backbone = {"model_type": "sam2_hiera_det_model", "hidden_size": 8, "image_size": [side, side]}
    backbone |= {"blocks_per_stage": [1, 1, 2, 1], "global_attention_blocks": [3]}
    backbone |= {"embed_dim_per_stage": [8, 16, 32, 64], "num_attention_heads_per_stage": [1, 1, 1, 1]}
    backbone |= {"window_size_per_stage": [4, 4, 4, 4], "window_positional_embedding_background_size": [4, 4]}
    vision = {"model_type": "sam2_vision_model", "backbone_config": backbone, "fpn_hidden_size": width}
    vision |= {"backbone_channel_list": [64, 32, 16, 8]}
    vision |= {"backbone_feature_sizes": [[side // factor] * 2 for factor in (4, 8, 16)]}
    decoder = {"hidden_size": width, "mlp_dim": 64, "num_attention_heads": 2, "num_hidden_layers": 1}
    config = Sam2VideoConfig(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": width, "image_size": side, "patch_size": 16},
        mask_decoder_config={**decoder, "iou_head_hidden_dim": 16, "iou_head_depth": 2},
        image_size=side,
        memory_attention_hidden_size=width,
        memory_attention_num_layers=1,
        memory_attention_feed_forward_hidden_size=32,
        memory_attention_rope_feat_sizes=[side // 16] * 2,
        memory_encoder_hidden_size=width,
        memory_encoder_output_channels=64,
        mask_downsampler_embed_dim=width,
        memory_fuser_embed_dim=width,
        memory_fuser_intermediate_dim=32,
        memory_fuser_num_layers=1,
    )
    Sam2VideoModel(config).save_pretrained(directory)
    sides = {"size": {"height": side, "width": side}, "mask_size": {"height": side // 4, "width": side // 4}}
    processors = Sam2ImageProcessor(**sides), Sam2VideoVideoProcessor(**sides)
    Sam2VideoProcessor(*processors, target_size=side).save_pretrained(directory)
    return directory
