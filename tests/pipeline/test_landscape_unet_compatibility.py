"""Image UNets and adapters that `UNetMotionModel.from_unet2d` would combine wrongly are refused."""

import pytest

from pipeline_landscape_video.landscape_unet_compatibility import check_adapter_fits
from tiny_models import build_motion_adapter, build_unet2d


@pytest.mark.parametrize(
    ("adapter", "message"),
    [
        ({"block_out_channels": (8, 8)}, r"down_blocks\.1 must have .* \[\(16, 4\)\], got \[\(8, 4\)\]"),
        ({"motion_norm_num_groups": 2}, r"down_blocks\.0 must have .* \[\(8, 4\)\], got \[\(8, 2\)\]"),
        ({"motion_layers_per_block": 2}, r"down_blocks\.0 "),
        ({"block_out_channels": (8, 16, 16)}, r"up_blocks\.1 must have layers"),
        ({"use_motion_mid_block": True, "motion_mid_block_layers_per_block": 2}, "mid_block"),
        ({"conv_in_channels": 9}, "must not have an image input"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(adapter, message):
    with pytest.raises(ValueError, match=message):
        check_adapter_fits(build_unet2d(), build_motion_adapter(**adapter))


@pytest.mark.parametrize(
    ("unet", "message"),
    [
        ({"flip_sin_to_cos": False}, "flip_sin_to_cos=False"),
        ({"freq_shift": 1}, "freq_shift=1"),
        ({"class_embed_type": "timestep"}, "class_embed_type='timestep'"),
        ({"down_block_types": ("AttnDownBlock2D", "DownBlock2D")}, "AttnDownBlock2D"),
        ({"in_channels": 9}, "must predict as many channels as it takes, got 4 for 9"),
    ],
)
def test_an_image_unet_that_a_motion_unet_cannot_reproduce_is_refused(unet, message):
    with pytest.raises(ValueError, match=message):
        check_adapter_fits(build_unet2d(**unet), build_motion_adapter())


@pytest.mark.parametrize("use_motion_mid_block", [False, True])
def test_an_adapter_that_fits_passes(use_motion_mid_block):
    check_adapter_fits(build_unet2d(), build_motion_adapter(use_motion_mid_block=use_motion_mid_block))
