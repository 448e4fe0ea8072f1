"""Lay out a scene, and move the camera and the things in it over time."""

import math
from dataclasses import replace

import numpy as np

from shanshui.renderer.brushwork import View, generator
from shanshui.renderer.scene import COMPOSED, WAYS, Scene


MIDDLE = 1.0  # seconds; the instant at which the composition appears as laid out
PAN = 0.115  # units per second that the nearest things move
ZOOM = 1.115  # magnification of the nearest things per second
DRIFT = 0.085  # units per second that boats, mist and birds cross the image
FOLLOWED = 0.25  # share of the near ground's pan that those follow
# Speed by the word for it: of the near ground to the right, of the logarithm of its magnification, of what drifts.
PANS = {"left": PAN, "right": -PAN}
ZOOMS = {"closer": math.log(ZOOM), "away": -math.log(ZOOM)}
DRIFTS = {"left": -DRIFT, "still": 0.0, "right": DRIFT}


def depth_share(depth: float) -> float:
    """Return the share of the camera's zoom that applies at `depth` (0 far, 1 near)."""
    return 0.35 + 0.65 * depth


class Layout:
    """Places (x, y), in image pixels, of a scene at `MIDDLE`.

    The composition is asymmetric, with the mountains on one side, trees and light on the other; nothing hides what the
    scene names. Half of the scenes are mirrored.

    With another scene as `begins_like`, camera, boat and birds are at time 0 where they are in that scene, and move as
    this one says from then on. Boats and birds leave the image more often in such clips.

    With another scene as `composed_like`, everything is where it is in that scene, which may show other motifs.

    Raises:
        ValueError: `begins_like` differs in more than the ways of camera, boat and birds, or `composed_like` in seed,
            layers, camera or water.
    """

    def __init__(
        self, view: View, scene: Scene, begins_like: Scene | None = None, composed_like: Scene | None = None
    ) -> None:
        self.view, self.scene, self.begins_like = view, scene, begins_like or scene
        self.composed = composed = composed_like or scene
        self.check_scenes()
        rng = generator(scene.seed, "layout")
        self.mirrored = rng.random() < 0.5
        shores = {"none": 0.86, "lake": (0.64, 0.70), "river": (0.58, 0.63)}[scene.water]
        self.horizon = (shores if scene.water == "none" else rng.uniform(*shores)) * view.height
        self.foot = self.horizon + 0.02 * view.height  # y of the mountains' feet

        # x and y are ranges, in image widths and heights.
        def place(x: tuple[float, float], y: tuple[float, float] = (0.0, 0.0)) -> tuple[float, float]:
            across, down = rng.uniform(*x), rng.uniform(*y)
            return (1 - across if self.mirrored else across) * view.width, down * view.height

        self.mass = place((0.24, 0.36))
        self.light = place((0.72, 0.81), (0.13, 0.19))
        self.birds = place((0.38, 0.44), (0.11, 0.15))
        self.boat = place((0.33, 0.39), (0.80, 0.84))
        self.pavilion = place((0.47, 0.51) if composed.trees != "none" else (0.53, 0.62), (0.60, 0.64))
        self.trees = place((0.90, 0.94), (0.90, 0.93))
        self.waterfall = place((0.19, 0.25) if composed.pavilion else (0.24, 0.34))
        self.seal = place((0.075, 0.085))
        self.river = place((0.39, 0.45))

    def check_scenes(self) -> None:
        scene, other = self.scene, self.begins_like
        shown = [[getattr(one, name) != "none" for name in WAYS] for one in (scene, other)]
        if replace(other, **{name: getattr(scene, name) for name in WAYS}) != scene or shown[0] != shown[1]:
            raise ValueError(f"`begins_like` must differ in {WAYS} only from {scene}, got {other}.")
        if any(getattr(self.composed, name) != getattr(scene, name) for name in COMPOSED):
            raise ValueError(f"`composed_like` must have the same {COMPOSED} as {scene}, got {self.composed}.")

    def across(self, x: float) -> np.ndarray:
        """Return the distance of each canvas column to the right of `x`, in image pixels, the shorter way round."""
        period = self.view.period
        return (self.view.x[0] - x + period / 2) % period - period / 2

    def fall(self) -> tuple[float, float]:
        """Return y of the upper and the lower end of the waterfall."""
        bottom = self.horizon - 0.05 * self.view.height
        return bottom - 0.30 * self.view.unit, bottom

    def camera(self, time: float) -> tuple[float, float]:
        """Return how far the nearest things have moved to the right, in pixels, and their magnification."""
        pan, zoom = (
            speeds.get(self.scene.camera, 0.0) * time - speeds.get(self.begins_like.camera, 0.0) * MIDDLE
            for speeds in (PANS, ZOOMS)
        )
        return pan * self.view.unit, math.exp(zoom)

    def ground_depth(self, y: float) -> float:
        """Return the depth of ground or water at the height `y`, as `ground` moves it."""
        return 0.55 + 0.45 * (y - self.horizon) / (self.view.height - self.horizon)

    def seen(self, x: float, y: float, depth: float, time: float) -> tuple[float, float, float]:
        """Return where the camera sees a point of the composition, and its magnification: (x, y, size)."""
        pan, zoom = self.camera(time)
        size = zoom ** depth_share(depth)
        center = self.view.width / 2
        return center + (x - center) * size + pan * depth, self.horizon + (y - self.horizon) * size, size

    def traveled(self, motif: str, time: float) -> float:
        """Return how far the boat or the birds have moved to the right, in pixels."""
        way, before = (DRIFTS[getattr(scene, motif)] for scene in (self.scene, self.begins_like))
        return (way * time - before * MIDDLE) * self.view.unit

    def boat_seen(self, x: float, y: float, time: float) -> tuple[float, float, float]:
        """`seen` for a boat laid out at (x, y): at anchor it moves like the water, else across the image."""
        depth, anchored = self.ground_depth(y), self.scene.boat == "still"
        if anchored != (self.begins_like.boat == "still"):  # it sets sail, or anchors, where the other one is
            pan, zoom = self.camera(0.0)
            if anchored:
                center = self.view.width / 2
                x += self.traveled("boat", 0.0) + (FOLLOWED - depth) * pan
                x = center + (x - center) / zoom ** depth_share(depth)
            else:
                x = self.seen(x, y, depth, 0.0)[0] - FOLLOWED * pan
        seen = self.seen(x, y, depth, time)
        return seen if anchored else (self.drifting(x, "boat", time), *seen[1:])

    def drifting(self, start: float, motif: str, time: float) -> float:
        """Return x of something that moves to one side of the image under every camera; it reappears on the other."""
        margin = 0.4 * self.view.unit
        across = self.view.width + 2 * margin
        return (start + self.traveled(motif, time) + FOLLOWED * self.camera(time)[0] + margin) % across - margin

    def inverse(self, depth: float, time: float, foot: float | None = None) -> np.ndarray:
        """Return the (2, 3) affine map from image to canvas pixels.

        Args:
            depth: 0 (far) to 1 (near); of the horizon, if `foot` is given.
            time: Seconds.
            foot: Depth of the lower edge of the image, for ground and water, which come toward the viewer.
        """
        pan, zoom = self.camera(time)
        center, horizon, scale = self.view.width / 2, self.horizon, self.view.oversample
        size = zoom ** depth_share(depth if foot is None else (depth + foot) / 2)
        shear = 0.0 if foot is None else pan * (foot - depth) / (self.view.height - horizon)
        x = [1, -shear, (size - 1) * center - pan * depth + shear * horizon]
        return np.array([x, [0, 1, (size - 1) * horizon]]) * (scale / size)

    def ground(self, time: float) -> np.ndarray:
        """Return the map from image to canvas pixels for ground and water."""
        return self.inverse(0.55, time, foot=1.0)
