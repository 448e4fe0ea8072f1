"""Measurements are checked on clips whose content is known, and the autoencoder on its reconstructions."""

import math

import numpy as np
import pytest

from shanshui.measuring.predictions import check_measurements, ssim_and_psnr
from shanshui.renderer.rendering import render_clip
from shanshui.renderer.scene import CAMERAS, FPS, PALETTES, Scene


def test_what_the_measurements_are_right_about(palette_classifier, tiny_components):
    scenes = [
        Scene(palette=palette, camera=camera, layers=2, seed=101)
        for palette, camera in zip(PALETTES, CAMERAS, strict=True)
    ]
    clips = np.stack([render_clip(scene, [k / FPS for k in range(6)], 64, 64) for scene in scenes])
    found = check_measurements(palette_classifier, tiny_components()["vae"], clips, scenes)
    assert found.held_out["camera"].value == 1 and found.held_out["palette"].value >= 0.8
    assert "camera" in found.valid and found.reconstructed.keys() == found.held_out.keys() - {"camera"}
    # The tiny autoencoder is random: nothing of an image is left.
    assert found.ssim.value < 0.5 and found.psnr.value < 20
    assert found.reconstructed["palette"].value < found.held_out["palette"].value


def test_fidelity_of_known_images():
    frames = render_clip(Scene(water="lake", seed=7), [0.0, 1.0], 64, 64)
    same = ssim_and_psnr(frames, np.clip(frames.astype(int) + 1, 0, 255).astype(np.uint8))
    assert same.shape == (2, 2) and (same[:, 0] > 0.99).all()
    assert same[:, 1] == pytest.approx(20 * math.log10(255), abs=0.1)
