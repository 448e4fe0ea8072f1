"""Image models that cannot become a motion UNet are refused by the name of the field."""

import pytest
import torch

from landscape_video.training.objectives.motion_models import load_motion_unet
from motion_adapter.build import attach_motion_adapter, create_motion_adapter
from tiny_models import build_unet2d


@pytest.mark.parametrize(
    "field",
    [
        {"act_fn": "gelu"},
        {"time_embedding_type": "fourier"},
        {"time_embedding_act_fn": "silu"},
        {"timestep_post_act": "silu"},
        {"mid_block_type": "UNetMidBlock2DSimpleCrossAttn"},
        {"mid_block_type": None},
        {"resnet_time_scale_shift": "scale_shift"},
        {"resnet_skip_time_act": True},
        {"resnet_out_scale_factor": 2.0},
        {"conv_in_kernel": 1},
        {"conv_out_kernel": 1},
        {"only_cross_attention": True},
        {"dual_cross_attention": True},
        {"class_embed_type": "timestep"},
        {"num_class_embeds": 4},
        {"flip_sin_to_cos": False},
        {"freq_shift": 1},
        {"center_input_sample": True},
        {"attention_type": "gated"},
        {"cross_attention_norm": "layer_norm"},
        {"addition_embed_type": "text"},
        {"encoder_hid_dim_type": "text_proj", "encoder_hid_dim": 16},
    ],
    ids=lambda field: "-".join(f"{name}={value}" for name, value in field.items()),
)
def test_a_field_that_would_be_lost_is_named(field):
    unet = build_unet2d()
    unet.register_to_config(**field)  # some of these cannot be built at this size
    name, value = next(iter(field.items()))
    with pytest.raises(ValueError, match=f"must not have {name}={value!r}: motion UNets do not support it"):
        create_motion_adapter(unet)


@pytest.mark.parametrize(
    "field",
    [
        {"act_fn": "swish"},
        {"only_cross_attention": [False, False]},
        {"mid_block_only_cross_attention": False},
        {"class_embed_type": None},
        {"dropout": 0.1},
        {"upcast_attention": True},
        {"use_linear_projection": True},
    ],
    ids=str,
)
def test_a_harmless_field_is_accepted(field):
    torch.manual_seed(0)
    unet = build_unet2d(**field)
    motion_unet = attach_motion_adapter(unet, create_motion_adapter(unet, motion_num_attention_heads=2)).eval()
    sample, text = torch.randn(1, 4, 3, 8, 8), torch.randn(3, 77, 16)
    with torch.no_grad():
        video = motion_unet(sample, 7, encoder_hidden_states=text).sample
        images = unet(sample[0].transpose(0, 1), 7, encoder_hidden_states=text).sample
    torch.testing.assert_close(video[0].transpose(0, 1), images, rtol=1e-4, atol=1e-5)


def test_a_unet_that_needs_more_than_a_caption_is_refused(tmp_path):
    unet = build_unet2d(
        addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=64
    )
    unet.save_pretrained(tmp_path / "unet")
    with pytest.raises(ValueError, match="addition_embed_type='text_time'"):
        load_motion_unet(str(tmp_path))
