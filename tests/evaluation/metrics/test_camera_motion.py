"""The camera is found in rendered clips, in which other things move as well."""

from dataclasses import replace

import numpy as np
import pytest

from known_motion import moving_noise
from landscape_video.evaluation.metrics.motion_metrics import CAMERA_DIRECTIONS, CameraMotion, fit_camera
from shanshui.renderer.rendering import render_clip
from shanshui.renderer.scene import CAMERAS, FPS, Scene


SCENES = (
    Scene(palette="ink", water="lake", birds="right", trees="pines", light="moon", pavilion=True, seed=7),
    Scene(palette="blue_green", mist="left", light="sun", waterfall=True, seed=3),
    Scene(palette="snow", water="river", birds="left", seed=4),
)


def test_directions_are_those_of_the_renderer():
    assert CAMERA_DIRECTIONS == CAMERAS


@pytest.mark.parametrize("camera", CAMERAS)
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.palette)
def test_camera_of_rendered_clips(camera, scene):
    clip = render_clip(replace(scene, camera=camera), [k / FPS for k in range(8)], 64, 64)
    assert fit_camera(clip).direction == camera
    assert fit_camera(np.repeat(clip[:1], 4, axis=0)).direction == "still"


def test_pan_is_the_speed_of_the_content():
    clip = moving_noise(2)  # 2 pixels a frame
    motion = fit_camera(clip)
    assert abs(motion.pan) * clip.shape[2] == pytest.approx(2, rel=0.1)
    assert abs(motion.zoom) < 0.1 * abs(motion.pan)
    assert fit_camera(clip[:, :, ::-1]).pan == pytest.approx(-motion.pan, rel=0.05)


def test_the_larger_motion_names_the_direction():
    assert CameraMotion(0.01, -0.02).direction == "away" and CameraMotion(0.02, -0.01).direction == "left"
    assert CameraMotion(-0.02, 0.01).direction == "right" and CameraMotion(0.002, -0.002).direction == "still"
