"""Draw many small things in the air: birds, rain, snowflakes and petals, redrawn for every frame."""

import math

import cv2
import numpy as np

from shanshui.renderer.brushwork import generator, rasterize, tint
from shanshui.renderer.composition import Layout
from shanshui.renderer.palettes import Palette, rgb


class Birds:
    """A skein that crosses the sky with beating wings."""

    def __init__(self, layout: Layout, colors: Palette) -> None:
        self.layout, self.color = layout, colors.line * 0.9
        rng = generator(layout.scene.seed, "birds")
        self.facing = {"left": -1, "right": 1}[layout.scene.birds]
        # The leader flies ahead, the others behind it in two lines; places are in units.
        places = [(0.0, 0.0), (-0.085, -0.045), (-0.095, 0.045), (-0.175, 0.085), (-0.185, -0.030)]
        self.places = np.array(places) + rng.uniform(-0.012, 0.012, (5, 2)) + (0.09, 0)
        self.phases = rng.uniform(0, 2 * np.pi, 5)
        self.sizes = rng.uniform(0.9, 1.1, 5)

    def wings(self, phase: float, size: float) -> np.ndarray:
        """Return the outline of one bird around its breast, (points, 2) in units."""
        span, lift = 0.048 * size, (0.010 + 0.024 * np.sin(phase)) * size
        share = np.linspace(-1, 1, 13)  # from wing tip to wing tip
        spine = -lift * np.abs(share) * (1.6 - 0.6 * np.abs(share)) - 0.010 * size * np.sin(np.pi * np.abs(share))
        thick = 0.011 * size * (1 - 0.72 * np.abs(share)) + 0.0035
        edges = [np.stack([share * span, spine + side * thick], 1) for side in (-1, 1)]
        return np.concatenate([edges[0], edges[1][::-1]])

    def inverse(self, time: float) -> np.ndarray:
        """Map from the image to coordinates that fly with the skein."""
        return np.array([[1, 0, -self.layout.drifting(self.layout.birds[0], "birds", time)], [0, 1, 0]])

    def draw(self, image: np.ndarray, time: float) -> None:
        view, layout = self.layout.view, self.layout
        x, y = layout.drifting(layout.birds[0], "birds", time), layout.birds[1]
        left, top = int(x - 0.24 * view.unit), max(int(y - 0.16 * view.unit), 0)
        right, bottom = int(x + 0.24 * view.unit) + 1, int(y + 0.20 * view.unit)
        shapes = []
        for place, phase, size in zip(self.places, self.phases, self.sizes, strict=True):
            glide = 0.008 * np.sin(2 * np.pi * 0.5 * time + phase)  # up and down, every 2 seconds
            outline = self.wings(2 * np.pi * 1.6 * time + phase, size) + (place[0] * self.facing, place[1] + glide)
            shapes.append(outline * view.unit + (x - left, y - top))
        coverage = rasterize(shapes, (bottom - top, right - left), 6 if view.unit <= 160 else 4)
        first, last = max(left, 0), min(right, view.width)
        if first < last:
            alpha = coverage.astype(np.float32) / 255
            tint(image[top:bottom, first:last], self.color, alpha[:, first - left : last - left])


class Weather:
    """Rain, snow or petals: particles that fall, wander, and reappear at the top."""

    # Particles in a square image; units per second down and across; units of sideways wandering.
    HABITS = {"rain": (130, 1.30, -0.28, 0.0), "snowfall": (110, 0.20, 0.04, 0.025), "petals": (30, 0.16, 0.12, 0.04)}

    def __init__(self, layout: Layout, colors: Palette) -> None:
        self.layout, self.kind, self.colors = layout, layout.scene.weather, colors
        view = layout.view
        number, *self.habit = self.HABITS[self.kind]
        number = round(number * view.height * view.width / view.unit**2)
        rng = generator(layout.scene.seed, "weather")
        self.place = rng.uniform(0, 1, (number, 2))
        self.near = rng.uniform(0, 1, number)
        self.phase = rng.uniform(0, 2 * np.pi, number)

    def positions(self, time: float) -> np.ndarray:
        """Return the positions of all particles, (particles, 2) pixels."""
        view = self.layout.view
        fall, across, wander = self.habit
        pan, _ = self.layout.camera(time)
        speed = 0.75 + 0.5 * self.near
        margin = 0.1 * view.unit
        size = np.array([view.width, view.height]) + 2 * margin
        x = self.place[:, 0] * size[0] + across * speed * time * view.unit + pan * (0.6 + 0.4 * self.near)
        x = x + wander * view.unit * np.sin(2 * np.pi * 0.4 * time + self.phase)
        y = self.place[:, 1] * size[1] + fall * speed * time * view.unit
        return np.stack([x, y], 1) % size - margin

    def outlines(self, time: float) -> np.ndarray:
        """Return the outlines of all particles, (particles, points, 2) pixels."""
        unit, near, phase = self.layout.view.unit, self.near[:, None], self.phase[:, None]
        turn = np.linspace(0, 2 * np.pi, 12, endpoint=False)
        if self.kind == "rain":
            ahead = np.array([self.habit[1], self.habit[0]]) / math.hypot(*self.habit[:2])
            # The trail of a drop: a needle, widest near its lower end.
            along = np.array([0.0, -0.18, -1.0, -0.18]) * (0.08 + 0.07 * near)
            across = np.array([0.0, 1.0, 0.0, -1.0]) * (0.0030 + 0.0020 * near)
            shape = along[..., None] * ahead + across[..., None] * (-ahead[1], ahead[0])
        elif self.kind == "snowfall":
            shape = np.stack([np.cos(turn), np.sin(turn)], 1) * (0.007 + 0.011 * near[..., None] ** 2)
        else:
            spin = phase + 2.2 * time * np.where(phase > np.pi, 1, -1)
            flat = 0.55 + 0.30 * np.sin(2.6 * time + 3 * phase)  # a petal tumbles, and is seen from its edge at times
            x, y = np.cos(turn) + 0 * phase, flat * np.sin(turn) * (1 - 0.35 * np.cos(turn))
            turned = [x * np.cos(spin) - y * np.sin(spin), x * np.sin(spin) + y * np.cos(spin)]
            shape = np.stack(turned, 2) * (0.015 + 0.008 * near[..., None])
        return shape * unit + self.positions(time)[:, None]

    def draw(self, image: np.ndarray, time: float) -> None:
        colors, unit = self.colors, self.layout.view.unit
        coverage = rasterize(self.outlines(time), image.shape[:2], 4 if unit <= 512 else 2).astype(np.float32) / 255
        color, opacity = colors.blossom, 0.95
        if self.kind == "rain":
            # A veil of rain over everything.
            image += (colors.far * 0.7 + 0.25 * colors.line - image) * np.float32(0.16)
            color, opacity = colors.line * 0.8 + colors.mist * 0.2, 0.62
        elif self.kind == "snowfall":
            # A darker sky, for the flakes to show; flakes are soft.
            image *= np.float32(0.92 if self.layout.scene.palette == "snow" else 0.80)
            color = rgb("ffffff")
            coverage = cv2.GaussianBlur(coverage, (0, 0), 0.0035 * unit)
        tint(image, color, coverage * opacity)
