"""The decoder stage: its loss along the flow, what it cuts, and that training gains on held-out clips."""

import numpy as np
import pytest
import torch

from shanshui.renderer.dataset import FramePairs
from shanshui.renderer.rendering import render_ground_truth
from shanshui.renderer.scene import Scene
from shanshui.stages.train_vae import cut, difference_along, flicker


def test_difference_along_follows_the_flow():
    frame = torch.rand(1, 1, 3, 12, 16, generator=torch.Generator().manual_seed(0))
    frames = torch.cat([frame, torch.roll(frame, (2, -3), (-2, -1))], 1)  # 2 down, 3 to the left
    flow = torch.tensor([-3.0, 2.0]).view(1, 2, 1, 1).expand(1, 2, 12, 16)
    difference = difference_along(flow, frames)
    assert difference[..., :10, 3:].abs().max() < 1e-5
    assert not difference[..., 10:, :].any() and not difference[..., :3].any()  # it leads out of the frame there
    assert difference_along(torch.zeros_like(flow), frames).abs().mean() > 0.1


def test_still_frames_do_not_flicker_and_noise_does():
    truth = render_ground_truth(Scene(camera="still"), [0.0, 0.5], 64, 64)
    still = torch.zeros(2, 3, 64, 64)
    assert flicker(still, truth) == 0
    noisy = still + torch.tensor([0.0, 0.1]).view(2, 1, 1, 1)
    assert flicker(noisy, truth) == pytest.approx(12.75, rel=1e-3)  # 0.1 of the range of 2


def test_cuts_show_the_same_place_in_latents_and_frames():
    pixels = np.arange(64, dtype=np.uint8)
    frames = np.broadcast_to((pixels[:, None] + pixels)[None, None, ..., None], (1, 2, 64, 64, 3))
    flow = np.broadcast_to(np.stack(np.meshgrid(pixels, pixels))[None].astype(np.float16), (1, 2, 64, 64))
    valid = np.broadcast_to(pixels[:, None] < 40, (1, 64, 64))
    latents = torch.arange(5 * 4 * 4.0).view(1, 5, 1, 4, 4)
    inputs, target, cut_flow, cut_valid = cut(FramePairs([2], frames, flow, valid), latents, 0, 1, 2, 2, 16)
    assert torch.equal(inputs, latents[0, 2:4, :, 1:3, 2:4])
    assert target.shape == (2, 3, 32, 32) and target[0, 0, 0, 0] == pytest.approx((16 + 32) / 127.5 - 1)
    assert cut_flow[:, 0, 0].tolist() == [32, 16]  # x, y
    assert cut_valid[0, :24].all() and not cut_valid[0, 24:].any()
