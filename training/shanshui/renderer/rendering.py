"""Render scenes at any size and any instant, with all that is known of the frames.

Exact optical flow, masks of the elements and depth follow from the elements of a scene: which of them a pixel shows,
and how each one moves.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import cv2
import numpy as np

from shanshui.renderer.brushwork import (
    COLORS,
    Canvas,
    Sprite,
    View,
    blend,
    generator,
    mix,
    noise,
    premultiplied,
    smoothstep,
)
from shanshui.renderer.composition import DRIFTS, FOLLOWED, Layout
from shanshui.renderer.landscape import Lake, River, Waterfall, depths, draw_mist, draw_mountain, fall_layer, ridge
from shanshui.renderer.motifs import (
    Birds,
    Weather,
    bamboo_sprite,
    bank,
    boat_sprite,
    light_sprite,
    pavilion_sprite,
    pine_sprite,
    rock_sprite,
    seal_sprite,
)
from shanshui.renderer.scene import SIZE, Scene


# Position of the anchor, lean of the top, height, in units; and the sprite.
PINES = ((0.0, 0.44, -0.05, pine_sprite), (-0.15, 0.30, -0.04, pine_sprite))
BAMBOO = (
    (0.03, 0.62, -0.05, bamboo_sprite), (-0.04, 0.55, -0.09, bamboo_sprite),
    (0.09, 0.50, 0.02, bamboo_sprite), (-0.10, 0.42, -0.07, bamboo_sprite),
)  # fmt: skip

SHOWN = 0.9  # share of a pixel that one element must make up for its flow to be exact


@dataclass(frozen=True)
class Element:
    """Something in a scene that is drawn, and moves, by itself.

    Attributes:
        name: Attribute of `Scene` that shows it, or "mountains", "land" or "paper".
        draw: Draws it into an image, (h, w, 3) float32 from 0 to 1, at a time in seconds.
        inverse: (2, 3) affine map from image pixels at a time to coordinates that move with it.
        depth: 0 (infinitely far) to 1 (nearest); None for what has no place in the landscape. The ground has a depth
            in each row of the image, (h, 1), at a time.
        rigid: Whether `inverse` describes its motion completely: it does not flow, flap or fall.
        opacity: Its opacity, (h, w), for elements that show what is behind them mirrored or moved.
    """

    name: str
    draw: Callable[[np.ndarray, float], None]
    inverse: Callable[[float], np.ndarray]
    depth: float | Callable[[float], np.ndarray] | None
    rigid: bool = True
    opacity: Callable[[], np.ndarray] | None = None


def resting(time: float) -> np.ndarray:
    """Map of elements that stay where they are in the image."""
    return np.eye(2, 3)


class SceneRenderer:
    """Prepares everything in a scene once; `frame` shows it at an instant.

    Attributes:
        elements: What is in the scene, from back to front.
        seal: Element that is drawn over everything.
    """

    def __init__(
        self,
        scene: Scene,
        height: int,
        width: int,
        begins_like: Scene | None = None,
        consistent: bool = False,
        composed_like: Scene | None = None,
    ) -> None:
        self.scene, self.view = scene, View(height, width, consistent)
        self.layout = Layout(self.view, scene, begins_like, composed_like)
        self.colors = COLORS[scene.palette]
        self.elements: list[Element] = []
        self.prepare_paper()
        self.add_landscape()
        self.add_motifs()
        if self.bare_edges is not None:
            self.elements.append(Element("paper", lambda image, time: blend(image, self.bare_edges), resting, None))
        seal = seal_sprite(self.view)
        seal_pose = seal.pose(self.layout.seal[0], self.view.height - 0.085 * self.view.unit)
        self.seal = Element("paper", lambda image, time: seal.draw(image, seal_pose), resting, None)

    def prepare_paper(self) -> None:
        """Draw the tone of the paper, (h, w, 3) about 1, the sky, and the bare paper at the borders."""
        view, colors = self.view, self.colors
        shape, down, across = (view.height, view.width), view.height / view.unit, view.width / view.unit
        rng = generator(self.scene.seed, "paper")
        blotches = noise(rng, shape, (3 * down, 3 * across), octaves=2, periodic=False)
        grain = noise(rng, shape, (64 * down, 48 * across), octaves=1, periodic=False, details=view.details(rng))
        self.paper = cv2.merge([1 + 0.010 * blotches + 0.007 * grain] * 3)
        y = (np.arange(view.height, dtype=np.float32)[:, None] + 0.5) / view.height
        wash = noise(rng, shape, (1.5 * down, 1.2 * across), octaves=3, periodic=False)
        self.bare_edges = self.draw_bare_edges(rng) if view.detail else None  # small images have no room for them
        self.sky = cv2.merge(list(mix(colors.sky, colors.paper, smoothstep(0.0, 0.55, y + 0.10 * wash))))

    def draw_bare_edges(self, rng: np.random.Generator) -> np.ndarray:
        """Draw the bare paper at the borders, where brush strokes begin and end: (h, w, 4)."""
        view = self.view
        x, y = (np.arange(size, dtype=np.float32) + 0.5 for size in (view.width, view.height))
        inward = np.minimum(np.minimum(x, view.width - x)[None], np.minimum(y, view.height - y)[:, None]) / view.unit
        cells = (14 * view.height / view.unit, 14 * view.width / view.unit)
        ragged = noise(rng, (view.height, view.width), cells, 3, 0.6, periodic=False)
        alpha = 1 - smoothstep(0.004, 0.011, inward + 0.006 * ragged)
        return premultiplied(self.colors.paper * 0.6 + 0.4, 0.85 * alpha)

    def add_canvas(self, name: str, pixels: np.ndarray, inverse: Callable[[float], np.ndarray], depth) -> None:
        """Add a canvas that the map `inverse(time)` moves; depth as in `Element`."""
        canvas = Canvas(pixels, self.view)
        self.elements.append(Element(name, lambda image, time: canvas.draw(image, inverse(time)), inverse, depth))

    def add_sprite(self, name: str, sprite: Sprite, place: Callable[[float], tuple[float, ...]], depth: float) -> None:
        """Add a sprite; `place(time)` gives x, y and, where they change, size, shear and angle."""

        def inverse(time: float) -> np.ndarray:
            return cv2.invertAffineTransform(sprite.pose(*place(time)))

        draw = lambda image, time: sprite.draw(image, sprite.pose(*place(time)))  # noqa: E731
        self.elements.append(Element(name, draw, inverse, depth))

    def add_landscape(self) -> None:
        """Add light, mountains with mist and waterfall between them, and water."""
        scene, view, layout, colors = self.scene, self.view, self.layout, self.colors
        if scene.light != "none":
            # Nearly at infinity: it moves little and keeps its size.
            place = lambda time: layout.seen(*layout.light, 0.02, time)[:2]  # noqa: E731
            self.add_sprite("light", light_sprite(view, scene, colors), place, 0.02)
        for layer, depth in enumerate(depths(scene.layers)):
            line = ridge(layout, layer)
            self.add_canvas(
                "mountains", draw_mountain(layout, colors, layer, line), partial(layout.inverse, depth), depth
            )
            if scene.mist != "none" and layer in (int(0.5 * (scene.layers - 1)), scene.layers - 1):
                k = int(layer == scene.layers - 1)
                # Without water the feet of the mountains are pale themselves; mist shows before their shoulders.
                above = (0.21, 0.05) if scene.water != "none" else (0.36, 0.10 if layout.composed.waterfall else 0.19)
                y, rng = layout.horizon - above[k] * view.height, generator(scene.seed, "mist", k)
                self.add_canvas("mist", draw_mist(view, rng, colors, y, 0.075 * view.height), self.mist_inverse, depth)
            if scene.waterfall and layer == fall_layer(scene.layers):
                fall = Waterfall(layout, colors, depth)
                self.elements.append(Element("waterfall", fall.draw, fall.inverse, depth, rigid=False))
        self.skyline = line
        self.water = {"none": None, "lake": Lake, "river": River}[scene.water]
        if self.water:
            water = self.water = self.water(layout, colors)
            if scene.water == "river":
                self.add_canvas("land", water.land, layout.ground, self.ground_depth)
            opacity = water.opacity if scene.water == "lake" else None
            self.elements.append(Element("water", water.draw, layout.ground, self.ground_depth, False, opacity))

    def add_motifs(self) -> None:
        """Add pavilion, boat, trees, birds and weather."""
        scene, view, layout, colors = self.scene, self.view, self.layout, self.colors
        if scene.pavilion:
            place = (*layout.pavilion, 0.62)  # at the shore, or on the nearest skyline where there is no shore
            if scene.water == "none":
                skyline = float(np.interp(layout.pavilion[0], view.x[0], self.skyline))
                place = (layout.pavilion[0], skyline + 0.085 * view.unit, depths(scene.layers)[-1])
            self.add_sprite("pavilion", pavilion_sprite(view, colors), partial(layout.seen, *place), place[2])
        if scene.boat != "none":
            self.add_sprite("boat", boat_sprite(view, colors), self.boat_place, layout.ground_depth(layout.boat[1]))
        if scene.trees != "none":
            rng, side = generator(scene.seed, "trees"), -1 if layout.mirrored else 1
            rock = rock_sprite(view, colors, rng, side)
            for x, tall, lean, sprite in PINES if scene.trees == "pines" else BAMBOO:
                tree = sprite(view, colors, rng, tall * rng.uniform(0.95, 1.05), lean * side)
                offset, phase = x * side * view.unit, rng.uniform(0, 2 * np.pi)
                self.add_sprite("trees", tree, partial(self.tree_place, offset, phase), 1.0)
            self.add_sprite("trees", rock, partial(layout.seen, *layout.trees, 1.0), 1.0)
        if scene.birds != "none":
            birds = Birds(layout, colors)
            self.elements.append(Element("birds", birds.draw, birds.inverse, FOLLOWED, rigid=False))
        if scene.weather != "none":
            self.elements.append(Element("weather", Weather(layout, colors).draw, resting, None, rigid=False))

    def ground_depth(self, time: float) -> np.ndarray:
        """Return the depth of ground or water in each row of the image, (h, 1)."""
        inverse = self.layout.ground(time) / self.view.oversample
        y = inverse[1, 1] * (np.arange(self.view.height)[:, None] + 0.5) + inverse[1, 2]
        return self.layout.ground_depth(np.maximum(y, self.layout.horizon)).astype(np.float32)

    def mist_inverse(self, time: float) -> np.ndarray:
        """Map from the image to the canvases of mist, which drift to the right by `wind` pixels."""
        inverse = self.layout.inverse(0.0, time)
        wind = DRIFTS[self.scene.mist] * self.view.unit * time + FOLLOWED * self.layout.camera(time)[0]
        inverse[0, 2] -= wind * self.view.oversample
        return inverse

    def boat_place(self, time: float) -> tuple[float, ...]:
        """Where the boat is; it bobs every 2 seconds and rolls every 2.5."""
        x, y = self.layout.boat
        if self.scene.water == "river":
            x = float(self.water.course(y)[0])
        x, y, size = self.layout.boat_seen(x, y, time)
        bob = 0.006 * self.view.unit * math.sin(2 * math.pi * 0.5 * time)
        return x, y + bob, size, 0.0, 0.03 * math.sin(2 * math.pi * 0.4 * time + 1)

    def tree_place(self, offset: float, phase: float, time: float) -> tuple[float, ...]:
        """Where a tree is that grows `offset` pixels from the anchor of its bank, and how far it sways."""
        view, layout = self.view, self.layout
        x, y, size = layout.seen(*layout.trees, 1.0, time)
        sway = 0.055 * math.sin(2 * math.pi * 0.45 * time + phase) + 0.02 * math.sin(2 * math.pi * 0.9 * time)
        rise = (bank(offset / view.unit, -1 if layout.mirrored else 1) + 0.012) * view.unit
        return x + offset * size, y + rise * size, size, sway

    def all_elements(self) -> list[Element]:
        """Return everything that the frames show, from back to front, sky and seal included."""
        sky = Element("sky", lambda image, time: None, resting, 0.0)
        return [sky, *self.elements, self.seal]

    def frame(self, time: float) -> np.ndarray:
        """Return the frame at `time` seconds, (height, width, 3) uint8 RGB."""
        image = self.sky.copy()
        for element in self.elements:
            element.draw(image, time)
        image *= self.paper
        self.seal.draw(image, time)
        return np.clip(image * 255 + 0.5, 0, 255).astype(np.uint8)


def render_clip(
    scene: Scene,
    times: Sequence[float],
    height: int = SIZE,
    width: int = SIZE,
    begins_like: Scene | None = None,
    consistent: bool = False,
) -> np.ndarray:
    """Render a scene at the given instants.

    Args:
        scene: What is shown and what moves.
        times: Seconds, any real values; a frame depends on its own instant only.
        height: Height of the frames in pixels.
        width: Width of the frames in pixels.
        begins_like: At time 0, camera, boat and birds are where they are in this scene (see `sample_beginning`); birds
            face their own way.
        consistent: Draw the textures of an image of 128 pixels, and finer ones on them; otherwise textures of a scene
            differ between 128 pixels and larger sizes.

    Returns:
        (len(times), height, width, 3) uint8 RGB.

    Raises:
        ValueError: `begins_like` differs in more than the ways of camera, boat and birds.
    """
    renderer = SceneRenderer(scene, height, width, begins_like, consistent)
    return np.stack([renderer.frame(time) for time in times])


class GroundTruth(NamedTuple):
    """Frames of a clip with what is known of them; n frames of height h and width w.

    Attributes:
        frames: (n, h, w, 3) uint8 RGB.
        forward_flow: (n - 1, 2, h, w) float32, displacement (x, y) in pixels from frame k to frame k + 1.
        forward_valid: (n - 1, h, w) bool, where that flow is exact: the pixel shows one rigidly moving element, which
            is visible in the other frame as well. Water, waterfall, birds and weather are never valid; their flow is
            that of the ground, the cliff, the skein and 0.
        backward_flow: (n - 1, 2, h, w) float32, displacement from frame k + 1 to frame k.
        backward_valid: (n - 1, h, w) bool, where that flow is exact.
        masks: For each name of `Element`, and "sky", the share (n, h, w) of each pixel that shows it, uint8 from 0 to
            255. The shares of a pixel sum to 255, up to rounding.
        depth: (n, h, w) float32 from 0 (infinitely far, as the sky) to 1 (nearest), of the nearest element that is at
            least half opaque. A camera that pans moves a pixel in proportion to it, so it is an inverse depth.
    """

    frames: np.ndarray
    forward_flow: np.ndarray
    forward_valid: np.ndarray
    backward_flow: np.ndarray
    backward_valid: np.ndarray
    masks: dict[str, np.ndarray]
    depth: np.ndarray


def render_ground_truth(
    scene: Scene,
    times: Sequence[float],
    height: int = SIZE,
    width: int = SIZE,
    begins_like: Scene | None = None,
    consistent: bool = False,
) -> GroundTruth:
    """Render a scene with exact flow, masks and depth. Arguments and errors as in `render_clip`."""
    renderer = SceneRenderer(scene, height, width, begins_like, consistent)
    elements = renderer.all_elements()
    opacities = [np.stack([opacity(element, time, height, width) for element in elements]) for time in times]
    shares = [visible_shares(alphas) for alphas in opacities]
    steps = [(k, k + 1) for k in range(len(times) - 1)]
    forward = [flow_between(elements, times[a], times[b], shares[a], shares[b]) for a, b in steps]
    backward = [flow_between(elements, times[b], times[a], shares[b], shares[a]) for a, b in steps]
    masks = {
        name: np.stack(
            [sum(share[k] for k, element in enumerate(elements) if element.name == name) for share in shares]
        )
        for name in dict.fromkeys(element.name for element in elements)
    }
    return GroundTruth(
        np.stack([renderer.frame(time) for time in times]),
        np.stack([flow for flow, _ in forward]),
        np.stack([valid for _, valid in forward]),
        np.stack([flow for flow, _ in backward]),
        np.stack([valid for _, valid in backward]),
        {name: np.round(255 * mask).astype(np.uint8) for name, mask in masks.items()},
        np.stack([depth_of(elements, alphas, time) for alphas, time in zip(opacities, times, strict=True)]),
    )


def render_with_depth(
    scene: Scene, times: Sequence[float], height: int = SIZE, width: int = SIZE
) -> tuple[np.ndarray, np.ndarray]:
    """Render a scene with its depth only, in a third of the time of `render_ground_truth`; arguments as there.

    Returns:
        `frames` and `depth` of `GroundTruth`.
    """
    renderer = SceneRenderer(scene, height, width)
    elements = renderer.all_elements()
    depths = [depth_of(elements, [opacity(one, time, height, width) for one in elements], time) for time in times]
    return np.stack([renderer.frame(time) for time in times]), np.stack(depths)


def opacity(element: Element, time: float, height: int, width: int) -> np.ndarray:
    """Return the opacity of an element, (height, width) from 0 to 1."""
    if element.opacity is not None:
        return np.broadcast_to(element.opacity(), (height, width))
    black, white = np.zeros((height, width, 3), np.float32), np.ones((height, width, 3), np.float32)
    if element.name == "sky":
        return white[..., 0]
    element.draw(black, time)
    element.draw(white, time)
    return np.clip(1 - (white - black)[..., 0], 0, 1)  # what still shows of the difference is not covered


def visible_shares(opacities: np.ndarray) -> np.ndarray:
    """Return the share of each pixel that shows each element, (elements, h, w), from opacities from back to front."""
    through = np.cumprod(1 - opacities[::-1], axis=0)[::-1]  # what an element and all in front of it let through
    return opacities * np.concatenate([through[1:], np.ones_like(through[:1])])


def flow_between(
    elements: Sequence[Element], time: float, other: float, shares: np.ndarray, other_shares: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the flow from `time` to `other`, (2, h, w), and where it is exact, (h, w).

    A pixel moves like the element that makes up most of it.
    """
    height, width = shares.shape[1:]
    start = np.stack(np.meshgrid(np.arange(width), np.arange(height)), dtype=np.float32, casting="unsafe") + 0.5
    owner = shares.argmax(0)
    flow, valid = np.zeros((2, height, width), np.float32), np.zeros((height, width), bool)
    for k in np.unique(owner):
        # From the image at `time` into the element, and back into the image at `other`.
        into, back = elements[k].inverse(time), cv2.invertAffineTransform(elements[k].inverse(other))
        end = cv2.transform(cv2.transform(start.transpose(1, 2, 0).astype(np.float64), into), back).transpose(2, 0, 1)
        flow[:, owner == k] = (end - start)[:, owner == k]
        if elements[k].rigid:
            x, y = (end - 0.5).astype(np.float32)
            shown = cv2.remap(other_shares[k].astype(np.float32), x, y, cv2.INTER_LINEAR)  # 0 outside the image
            valid |= (owner == k) & (shares[k] >= SHOWN) & (shown >= SHOWN)
    return flow, valid


def depth_of(elements: Sequence[Element], opacities: Sequence[np.ndarray], time: float) -> np.ndarray:
    """Return the depth of the nearest element that is at least half opaque, (h, w)."""
    depth = np.zeros(opacities[0].shape, np.float32)
    for element, alpha in zip(elements, opacities, strict=True):
        if element.depth is not None:
            own = element.depth(time) if callable(element.depth) else element.depth
            depth = np.where(alpha >= 0.5, own, depth).astype(np.float32)
    return depth
