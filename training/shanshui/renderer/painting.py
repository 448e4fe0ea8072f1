"""A `Scene` becomes frames at any size and any instant."""

import math
from collections.abc import Sequence

import cv2
import numpy as np

from shanshui.renderer.brushwork import Canvas, View, generator, lay_over, mix, noise, premultiplied, smoothstep
from shanshui.renderer.composition import DRIFTS, FOLLOWED, Layout
from shanshui.renderer.motifs import (
    bamboo_sprite,
    bank,
    boat_sprite,
    light_sprite,
    pavilion_sprite,
    pine_sprite,
    rock_sprite,
    seal_sprite,
)
from shanshui.renderer.mountains import depths, fall_layer, paint_mountain, ridge
from shanshui.renderer.palettes import PALETTES
from shanshui.renderer.particles import Birds, Weather
from shanshui.renderer.scene import Scene
from shanshui.renderer.waters import Lake, River, Waterfall, mist_canvas


class Painting:
    """A scene, painted once; `frame` shows it at an instant."""

    def __init__(self, scene: Scene, height: int, width: int, begins_like: Scene | None = None) -> None:
        self.scene, self.view = scene, View(height, width)
        self.layout = Layout(self.view, scene, begins_like)
        self.colours = PALETTES[scene.palette]
        self.paint_paper()
        self.paint_mountains()
        self.paint_motifs()

    def paint_paper(self) -> None:
        """What stays in the frame: the paper's tone, (h, w, 1) about 1, and the sky painted on it, (h, w, 3)."""
        view, colours = self.view, self.colours
        shape = (view.height, view.width)
        across = view.width / view.unit
        down = view.height / view.unit
        rng = generator(self.scene.seed, "paper")
        blotches = noise(rng, shape, (3 * down, 3 * across), octaves=2, periodic=False)
        grain = noise(rng, shape, (64 * down, 48 * across), octaves=1 + view.detail, periodic=False)
        self.paper = cv2.merge([1 + 0.010 * blotches + 0.007 * grain] * 3)
        y = (np.arange(view.height, dtype=np.float32)[:, None] + 0.5) / view.height
        wash = noise(rng, shape, (1.5 * down, 1.2 * across), octaves=3, periodic=False)
        self.bare = self.brushed_edges(rng) if view.detail else None
        self.sky = cv2.merge(list(mix(colours.sky, colours.paper, smoothstep(0.0, 0.55, y + 0.10 * wash))))

    def brushed_edges(self, rng: np.random.Generator) -> np.ndarray:
        """(h, w, 4) bare paper at the borders, where strokes begin and end; small pictures have no room for it."""
        view = self.view
        shape = (view.height, view.width)
        x, y = (np.arange(size, dtype=np.float32) + 0.5 for size in (view.width, view.height))
        inward = np.minimum(np.minimum(x, view.width - x)[None], np.minimum(y, view.height - y)[:, None]) / view.unit
        ragged = noise(rng, shape, (14 * view.height / view.unit, 14 * view.width / view.unit), 3, 0.6, periodic=False)
        alpha = 1 - smoothstep(0.004, 0.011, inward + 0.006 * ragged)
        return premultiplied(self.colours.paper * 0.6 + 0.4, 0.85 * alpha)

    def paint_mountains(self) -> None:
        scene, view, layout = self.scene, self.view, self.layout
        self.depths = depths(scene.layers)
        self.mountains = []
        for layer in range(scene.layers):
            line = ridge(layout, layer)
            paint = paint_mountain(layout, self.colours, layer, line)
            self.mountains.append(Canvas(paint, view))
        # A pavilion stands at the shore, or on the nearest skyline where there is no shore.
        self.pavilion_place = (*layout.pavilion, 0.62)
        if scene.water == "none":
            skyline = float(np.interp(layout.pavilion[0], view.x[0], line))
            self.pavilion_place = (layout.pavilion[0], skyline + 0.085 * view.unit, self.depths[-1])
        self.mist = {}
        for k, share in enumerate((0.5, 1.0) if scene.mist != "none" else ()):
            # Where there is no water the foot of the mountains is pale by itself: mist shows against their shoulders.
            above = (0.21, 0.05) if scene.water != "none" else (0.36, 0.10 if scene.waterfall else 0.19)
            y = layout.horizon - above[k] * view.height
            canvas = mist_canvas(view, generator(scene.seed, "mist", k), self.colours, y, 0.075 * view.height)
            self.mist[int(share * (scene.layers - 1))] = canvas

    def paint_motifs(self) -> None:
        scene, view, layout, colours = self.scene, self.view, self.layout, self.colours
        middle = fall_layer(scene.layers)
        self.waterfall = Waterfall(layout, colours, self.depths[middle]) if scene.waterfall else None
        self.water = {"none": None, "lake": Lake, "river": River}[scene.water]
        self.water = self.water and self.water(layout, colours)
        self.light = light_sprite(view, scene, colours) if scene.light != "none" else None
        self.boat = boat_sprite(view, colours) if scene.boat != "none" else None
        self.pavilion = pavilion_sprite(view, colours) if scene.pavilion else None
        self.birds = Birds(layout, colours) if scene.birds != "none" else None
        self.weather = Weather(layout, colours) if scene.weather != "none" else None
        self.seal = seal_sprite(view)
        self.trees = []
        if scene.trees == "none":
            return
        rng = generator(scene.seed, "trees")
        side = -1 if layout.mirrored else 1
        self.rock = rock_sprite(view, colours, rng, side)
        if scene.trees == "pines":
            kinds = ((0.0, 0.44, -0.05, pine_sprite), (-0.15, 0.30, -0.04, pine_sprite))
        else:
            kinds = (
                (0.03, 0.62, -0.05, bamboo_sprite), (-0.04, 0.55, -0.09, bamboo_sprite),
                (0.09, 0.50, 0.02, bamboo_sprite), (-0.10, 0.42, -0.07, bamboo_sprite),
            )  # fmt: skip
        for x, tall, lean, sprite in kinds:
            tree = sprite(view, colours, rng, tall * rng.uniform(0.95, 1.05), lean * side)
            self.trees.append((x * side * view.unit, tree, rng.uniform(0, 2 * np.pi)))

    def frame(self, time: float) -> np.ndarray:
        """(height, width, 3) uint8 RGB at `time` seconds."""
        view, layout = self.view, self.layout
        picture = self.sky.copy()
        if self.light:
            self.light.place(picture, *layout.seen(*layout.light, 0.02, time)[:2])
        for layer, canvas in enumerate(self.mountains):
            canvas.lay(picture, layout.inverse(self.depths[layer], time))
            if layer in self.mist:
                inverse = layout.inverse(0.0, time)
                inverse[0, 2] -= self.wind(time) * view.oversample
                self.mist[layer].lay(picture, inverse)
            if self.waterfall and layer == fall_layer(self.scene.layers):
                self.waterfall.lay(picture, time)
        if self.water:
            self.water.lay(picture, time)
        self.place_pavilion(picture, time)
        self.place_boat(picture, time)
        self.place_trees(picture, time)
        if self.birds:
            self.birds.lay(picture, time)
        if self.weather:
            self.weather.lay(picture, time)
        if self.bare is not None:
            lay_over(picture, self.bare)
        picture *= self.paper
        self.seal.place(picture, layout.seal[0], view.height - 0.085 * view.unit)
        return np.clip(picture * 255 + 0.5, 0, 255).astype(np.uint8)

    def wind(self, time: float) -> float:
        """Pixels that mist has come to the right."""
        return DRIFTS[self.scene.mist] * self.view.unit * time + FOLLOWED * self.layout.camera(time)[0]

    def place_pavilion(self, picture: np.ndarray, time: float) -> None:
        if self.pavilion:
            self.pavilion.place(picture, *self.layout.seen(*self.pavilion_place, time))

    def place_boat(self, picture: np.ndarray, time: float) -> None:
        if self.boat is None:
            return
        x, y = self.layout.boat
        if self.scene.water == "river":
            x = float(self.water.course(y)[0])
        x, y, size = self.layout.boat_seen(x, y, time)
        bob = 0.006 * self.view.unit * math.sin(2 * math.pi * 0.5 * time)
        self.boat.place(picture, x, y + bob, size, angle=0.03 * math.sin(2 * math.pi * 0.4 * time + 1))

    def place_trees(self, picture: np.ndarray, time: float) -> None:
        if not self.trees:
            return
        view = self.view
        x, y, size = self.layout.seen(*self.layout.trees, 1.0, time)
        for offset, tree, phase in self.trees:
            sway = 0.055 * math.sin(2 * math.pi * 0.45 * time + phase) + 0.02 * math.sin(2 * math.pi * 0.9 * time)
            rise = (bank(offset / view.unit, -1 if self.layout.mirrored else 1) + 0.012) * view.unit
            tree.place(picture, x + offset * size, y + rise * size, size, shear=sway)
        self.rock.place(picture, x, y, size)


def render_clip(
    scene: Scene, times: Sequence[float], height: int = 128, width: int = 128, begins_like: Scene | None = None
) -> np.ndarray:
    """Render a scene at the given instants.

    Args:
        scene: what is seen and what moves.
        times: seconds, any real values; a frame depends on its own instant only.
        height: of the frames, in pixels.
        width: of the frames, in pixels.
        begins_like: at time 0, camera, boat and birds stand where they do in this scene (see `sample_beginning`);
            birds face their own way.

    Returns:
        (len(times), height, width, 3) uint8 RGB.

    Raises:
        ValueError: `begins_like` differs in more than the ways of camera, boat and birds.
    """
    painting = Painting(scene, height, width, begins_like)
    return np.stack([painting.frame(time) for time in times])
