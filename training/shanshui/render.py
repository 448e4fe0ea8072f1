"""Render ink-landscape clips: a `Scene` becomes frames at any size and any instant."""

from collections.abc import Sequence

import numpy as np
from brushwork import Sprite, View, generator, lay_over, noise, sample, smoothstep
from composition import DRIFT, Layout
from motifs import boat_sprite, light_sprite, seal_sprite
from mountains import depths, paint_mountain, ridge
from palettes import PALETTES
from scene import Scene
from waters import Lake, mist_canvas


class Painting:
    """A scene, painted once; `frame` shows it at an instant."""

    def __init__(self, scene: Scene, height: int, width: int) -> None:
        self.scene, self.view = scene, View(height, width)
        self.layout = Layout(self.view, scene)
        self.colours = PALETTES[scene.palette]
        self.paper, self.sky = self.paint_paper()
        self.mountains = []
        for layer, depth in enumerate(depths(scene.layers)):
            line = ridge(self.layout, layer)
            self.mountains.append((depth, paint_mountain(self.layout, self.colours, layer, line)))
        self.water = Lake(self.layout, self.colours) if scene.water != "none" else None
        self.light = light_sprite(self.view, scene, self.colours) if scene.light != "none" else None
        self.boat = boat_sprite(self.view, self.colours) if scene.boat != "none" else None
        self.mist = []
        if scene.mist != "none":
            for k, share in enumerate((0.55, 1.0)):
                rng = generator(scene.seed, "mist", k)
                y = self.layout.horizon - (0.20 - 0.17 * k) * self.view.height
                canvas = mist_canvas(self.view, rng, self.colours, y, (0.07 + 0.01 * k) * self.view.height)
                self.mist.append((round(share * (scene.layers - 1)), canvas))
        self.seal = seal_sprite(self.view)

    def paint_paper(self) -> tuple[np.ndarray, np.ndarray]:
        """What stays in the frame: the paper's tone, (h, w, 1) about 1, and the sky painted on it, (h, w, 3)."""
        view, colours = self.view, self.colours
        shape = (view.height, view.width)
        across = view.width / view.unit
        down = view.height / view.unit
        rng = generator(self.scene.seed, "paper")
        blotches = noise(rng, shape, (3 * down, 3 * across), octaves=2, periodic=False)
        grain = noise(rng, shape, (64 * down, 48 * across), octaves=1, periodic=False)
        paper = 1 + 0.010 * blotches + 0.007 * grain
        y = (np.arange(view.height, dtype=np.float32)[:, None] + 0.5) / view.height
        wash = noise(rng, shape, (1.5 * down, 1.2 * across), octaves=3, periodic=False)
        high = np.clip(1 - smoothstep(0.0, 0.55, y + 0.10 * wash), 0, 1)[..., None]
        return paper[..., None].astype(np.float32), colours.paper + (colours.sky - colours.paper) * high

    def frame(self, time: float) -> np.ndarray:
        """(height, width, 3) uint8 RGB at `time` seconds."""
        view, layout, scene = self.view, self.layout, self.scene
        shape = (view.height, view.width)
        picture = self.sky.astype(np.float32)
        if self.light:
            x, y, size = layout.seen(*layout.light, 0.02, time)
            self.light.place(picture, x, y)
        for layer, (depth, canvas) in enumerate(self.mountains):
            lay_over(picture, sample(canvas, layout.inverse(depth, time), shape))
            for behind, mist in self.mist:
                if behind == layer:
                    inverse = layout.inverse(0.0, time)
                    inverse[0, 2] -= self.flow(scene.mist, time) * view.oversample
                    lay_over(picture, sample(mist, inverse, shape))
        if self.water:
            self.water.lay(picture, time)
        if self.boat:
            self.place_boat(picture, self.boat, time)
        picture *= self.paper
        self.seal.place(picture, layout.seal[0], view.height - 0.085 * view.unit)
        return np.clip(picture * 255 + 0.5, 0, 255).astype(np.uint8)

    def flow(self, direction: str, time: float) -> float:
        """Pixels that something which crosses the picture has come to the right."""
        return {"left": -1, "right": 1}[direction] * DRIFT * self.view.unit * time + 0.25 * self.layout.camera(time)[0]

    def place_boat(self, picture: np.ndarray, boat: Sprite, time: float) -> None:
        layout, direction = self.layout, self.scene.boat
        x, y, size = layout.seen(*layout.boat, 0.85, time)
        if direction != "still":
            x = layout.drifting(layout.boat[0], direction, DRIFT, time)
        bob = 0.006 * self.view.unit * np.sin(2 * np.pi * 0.5 * time)
        boat.place(picture, x, y + bob, size, angle=0.03 * np.sin(2 * np.pi * 0.4 * time + 1))


def render_clip(scene: Scene, times: Sequence[float], height: int = 128, width: int = 128) -> np.ndarray:
    """Render a scene at the given instants.

    Args:
        scene: what is seen and what moves.
        times: seconds, any real values; a frame depends on its own instant only.
        height: of the frames, in pixels.
        width: of the frames, in pixels.

    Returns:
        (len(times), height, width, 3) uint8 RGB.
    """
    painting = Painting(scene, height, width)
    return np.stack([painting.frame(time) for time in times])
