"""Where everything stands in a scene, and how the camera and the things in it move over time."""

import math
from dataclasses import replace

import numpy as np

from shanshui.renderer.brushwork import View, generator
from shanshui.renderer.scene import WAYS, Scene


MIDDLE = 1.0  # seconds; the instant at which the composition stands as laid out
PAN = 0.115  # picture widths (of the smaller side) a second, for what is nearest
ZOOM = 1.115  # magnification in a second, for what is nearest
DRIFT = 0.085  # units a second: boats, mist and birds across the picture
FOLLOWED = 0.25  # share of the near ground's pan that those go along with
# In a second, by the words for it: the near ground to the right, the logarithm of its magnification, and what drifts.
PANS = {"left": PAN, "right": -PAN}
ZOOMS = {"closer": math.log(ZOOM), "away": -math.log(ZOOM)}
DRIFTS = {"left": -DRIFT, "still": 0.0, "right": DRIFT}


def depth_share(depth: float) -> float:
    """How much of the camera's zoom something at `depth` (0 far, 1 near) takes part in."""
    return 0.35 + 0.65 * depth


class Layout:
    """Places, (x, y) in picture pixels, of a scene at `MIDDLE`: asymmetric, the weight on one side, trees and light on
    the other, nothing in front of anything that the scene names. Half the scenes are mirrored.

    With another scene as `begins_like`, camera, boat and birds stand at time 0 where they do there, and go the scene's
    own way from then on; boats and birds more often leave the picture so.

    Raises:
        ValueError: `begins_like` differs in more than the ways of camera, boat and birds.
    """

    def __init__(self, view: View, scene: Scene, begins_like: Scene | None = None) -> None:
        self.view, self.scene, self.begins_like = view, scene, begins_like or scene
        self.check_beginning()
        rng = generator(scene.seed, "layout")
        self.mirrored = rng.random() < 0.5
        shores = {"none": 0.86, "lake": (0.64, 0.70), "river": (0.58, 0.63)}[scene.water]
        self.horizon = (shores if scene.water == "none" else rng.uniform(*shores)) * view.height

        def place(x: tuple[float, float], y: tuple[float, float] = (0.0, 0.0)) -> tuple[float, float]:
            across, down = rng.uniform(*x), rng.uniform(*y)
            return (1 - across if self.mirrored else across) * view.width, down * view.height

        self.mass = place((0.24, 0.36))
        self.light = place((0.72, 0.81), (0.13, 0.19))
        self.birds = place((0.38, 0.44), (0.11, 0.15))
        self.boat = place((0.33, 0.39), (0.80, 0.84))
        self.pavilion = place((0.47, 0.51) if scene.trees != "none" else (0.53, 0.62), (0.60, 0.64))
        self.trees = place((0.90, 0.94), (0.90, 0.93))
        self.waterfall = place((0.19, 0.25) if scene.pavilion else (0.24, 0.34))
        self.seal = place((0.075, 0.085))
        self.river = place((0.39, 0.45))

    def check_beginning(self) -> None:
        scene, other = self.scene, self.begins_like
        seen = [[getattr(one, name) != "none" for name in WAYS] for one in (scene, other)]
        if replace(other, **{name: getattr(scene, name) for name in WAYS}) != scene or seen[0] != seen[1]:
            raise ValueError(f"`begins_like` is another landscape: {other}, must differ from {scene} in ways only.")

    def fall(self) -> tuple[float, float]:
        """y of the upper and the lower end of the waterfall."""
        bottom = self.horizon - 0.05 * self.view.height
        return bottom - 0.30 * self.view.unit, bottom

    def camera(self, time: float) -> tuple[float, float]:
        """How far near things have moved to the right, in pixels, and how much they are magnified."""
        pan, zoom = (
            speeds.get(self.scene.camera, 0.0) * time - speeds.get(self.begins_like.camera, 0.0) * MIDDLE
            for speeds in (PANS, ZOOMS)
        )
        return pan * self.view.unit, math.exp(zoom)

    def ground_depth(self, y: float) -> float:
        """Depth of the ground or water at the height `y`, as `inverse(0.55, time, foot=1.0)` moves it."""
        return 0.55 + 0.45 * (y - self.horizon) / (self.view.height - self.horizon)

    def seen(self, x: float, y: float, depth: float, time: float) -> tuple[float, float, float]:
        """Where the camera sees a point of the composition, and how large: (x, y, size)."""
        pan, zoom = self.camera(time)
        size = zoom ** depth_share(depth)
        centre = self.view.width / 2
        return centre + (x - centre) * size + pan * depth, self.horizon + (y - self.horizon) * size, size

    def travelled(self, motif: str, time: float) -> float:
        """How far the boat or the birds have come to the right, in pixels."""
        way, before = (DRIFTS[getattr(scene, motif)] for scene in (self.scene, self.begins_like))
        return (way * time - before * MIDDLE) * self.view.unit

    def boat_seen(self, x: float, y: float, time: float) -> tuple[float, float, float]:
        """`seen` for a boat laid out at (x, y): at anchor it moves as the water does, else across the picture."""
        depth, anchored = self.ground_depth(y), self.scene.boat == "still"
        if anchored != (self.begins_like.boat == "still"):  # it sets sail, or casts anchor, where the other one is
            pan, zoom = self.camera(0.0)
            if anchored:
                centre = self.view.width / 2
                x += self.travelled("boat", 0.0) + (FOLLOWED - depth) * pan
                x = centre + (x - centre) / zoom ** depth_share(depth)
            else:
                x = self.seen(x, y, depth, 0.0)[0] - FOLLOWED * pan
        seen = self.seen(x, y, depth, time)
        return seen if anchored else (self.drifting(x, "boat", time), *seen[1:])

    def drifting(self, start: float, motif: str, time: float) -> float:
        """x of something that moves to a side of the picture whatever the camera does; it comes round again."""
        margin = 0.4 * self.view.unit
        across = self.view.width + 2 * margin
        return (start + self.travelled(motif, time) + FOLLOWED * self.camera(time)[0] + margin) % across - margin

    def inverse(self, depth: float, time: float, foot: float | None = None) -> np.ndarray:
        """(2, 3) affine map from the picture to a canvas at `depth`.

        Args:
            depth: 0 (far) to 1 (near); of the horizon, if `foot` is given.
            time: seconds.
            foot: depth of the picture's lower edge, for ground and water that come towards the viewer.
        """
        pan, zoom = self.camera(time)
        centre, horizon, scale = self.view.width / 2, self.horizon, self.view.oversample
        size = zoom ** depth_share(depth if foot is None else (depth + foot) / 2)
        shear = 0.0 if foot is None else pan * (foot - depth) / (self.view.height - horizon)
        matrix = np.array(
            [
                [1, -shear, (size - 1) * centre - pan * depth + shear * horizon],
                [0, 1, (size - 1) * horizon],
            ]
        )
        return matrix * (scale / size)
