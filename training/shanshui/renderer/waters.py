"""Draw what flows: lake, river, waterfall and mist."""

import math

import cv2
import numpy as np

from shanshui.renderer.brushwork import (
    Canvas,
    Palette,
    View,
    generator,
    mix,
    noise,
    premultiplied,
    smoothstep,
    soften,
    tint,
)
from shanshui.renderer.composition import Layout


def draw_ripples(view: View, rng: np.random.Generator, colors: Palette) -> np.ndarray:
    """Draw level strokes, light and dark, for the surface of still water: canvas pixels."""
    field = view.canvas_noise(rng, 26, 3, octaves=2, gain=0.4)
    light, dark = smoothstep(0.35, 0.85, field), smoothstep(0.30, 0.85, -field)
    alpha = np.maximum(0.60 * light, 0.38 * dark)
    color = mix(colors.water * 0.72 + colors.line * 0.28, colors.mist, light > dark)
    return soften(premultiplied(color, alpha), view)


class Lake:
    """Still water that mirrors what is above the horizon, broken by ripples."""

    def __init__(self, layout: Layout, colors: Palette) -> None:
        self.layout, self.colors = layout, colors
        rng = generator(layout.scene.seed, "ripples")
        self.ripples = Canvas(draw_ripples(layout.view, rng, colors), layout.view)

    def mirror(self, image: np.ndarray, below: np.ndarray, time: float) -> np.ndarray:
        """Return what `image` shows above the horizon, upside down and swaying, (rows, w, 3).

        `below`, (rows, 1), is the distance of each row from the horizon in units.
        """
        view, horizon = self.layout.view, self.layout.horizon
        x = np.arange(view.width, dtype=np.float32)[None]
        distance = np.maximum(below, 0)
        sway = view.unit * 0.05 * distance * np.sin(2 * np.pi * (0.6 * time - 12.6 * np.sqrt(distance)))
        down = horizon - 1.15 * below * view.unit - 0.5 + 0 * x
        maps = (x + sway).astype(np.float32), down.astype(np.float32)
        mirror = cv2.remap(image[: int(horizon)], *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return cv2.GaussianBlur(mirror, (0, 0), 0.012 * view.unit, sigmaY=0.02 * view.unit)

    def opacity(self) -> np.ndarray:
        """Return the opacity of the water in each row of the image, (h, 1)."""
        y = np.arange(self.layout.view.height, dtype=np.float32)[:, None] + 0.5
        return np.clip(y - np.float32(self.layout.horizon) + 0.5, 0, 1)

    def draw(self, image: np.ndarray, time: float) -> None:
        view, horizon, colors = self.layout.view, self.layout.horizon, self.colors
        top = int(horizon)
        y = np.arange(view.height, dtype=np.float32)[:, None] + 0.5
        below = (y - np.float32(horizon)) / np.float32(view.unit)
        edge = self.opacity()
        away = smoothstep(0.0, 0.34, below[top:])
        base = mix(colors.mist, colors.water, 0.45 + 0.45 * away)
        mirror = np.stack(cv2.split(self.mirror(image, below[top:], time)))
        tint(image[top:], mix(base, mirror, 0.62 * (1 - 0.75 * away)), edge[top:] + 0 * mirror[0])
        inverse = self.layout.ground(time)
        inverse[0, 2] += 0.02 * view.unit * view.oversample * time  # ripples drift by 0.02 units a second
        self.ripples.draw(image, inverse, (edge * (0.35 + 0.65 * smoothstep(0.0, 0.2, below)))[:, 0])


class Stream:
    """The strokes of flowing water: a texture that repeats along the flow."""

    def __init__(self, rng: np.random.Generator, across: float, along: float) -> None:
        field = noise(rng, (128, 512), (across, along), octaves=2, gain=0.5)
        self.texture = np.concatenate([field, field[:, :1]], axis=1)

    def at(self, across: np.ndarray, along: np.ndarray) -> np.ndarray:
        """Return its value, about -1 to 1, at `across` from -1 to 1 and any `along`, in periods."""
        rows, columns = np.broadcast_arrays((across + 1) * 63.5, along % 1 * 512)
        maps = columns.astype(np.float32), rows.astype(np.float32)
        return cv2.remap(self.texture, *maps, cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE)


class River:
    """Land to the horizon, and a river that winds through it toward the viewer."""

    def __init__(self, layout: Layout, colors: Palette) -> None:
        self.layout, self.colors = layout, colors
        rng = generator(layout.scene.seed, "river")
        self.phase = rng.uniform(-0.4, 0.4)
        # Of the two ways to wind, the one that brings the boat where the composition wants it, clear of the trees.
        self.bend = 1
        x, y = layout.boat
        swing = self.course(y)[0] - layout.river[0]
        self.bend = 1 if swing * (x - layout.river[0]) > 0 else -1
        self.stream = Stream(rng, 5, 8)
        self.land = self.draw_land(rng)

    def draw_land(self, rng: np.random.Generator) -> np.ndarray:
        """Draw the ground on both sides of the river: canvas pixels."""
        view, horizon, colors = self.layout.view, self.layout.horizon, self.colors
        field = view.canvas_noise(rng, 9, 1.5, octaves=3)
        below = (view.y - horizon) / view.unit
        ink = np.clip((0.16 + 0.50 * smoothstep(0.0, 0.40, below)) * (1 + 0.5 * field), 0, 1)
        color = mix(colors.mist, colors.slope * 0.8 + colors.ridge * 0.2, ink)
        alpha = np.clip((view.y - horizon) * view.oversample + 0.5, 0, 1) + 0 * field
        return soften(premultiplied(color, alpha), view)

    def near(self, y: np.ndarray | float) -> np.ndarray | float:
        """Return 0 at the horizon, 1 at the lower edge of the composition, at most 1.7 below it."""
        layout = self.layout
        return np.clip((y - layout.horizon) / (layout.view.height - layout.horizon), 0, 1.7)

    def course(self, y: np.ndarray | float) -> tuple[np.ndarray | float, np.ndarray | float]:
        """Return x of the river's middle and half its width, in pixels, at the height `y` of the composition."""
        view, layout, near = self.layout.view, self.layout, self.near(y)
        wide = 0.34 if layout.scene.boat != "none" else 0.24
        turn = np.sin(self.phase + 6.0 * near**0.7) * (0.05 + 0.17 * near * (1.35 - near))
        return layout.river[0] + self.bend * view.unit * turn, view.unit * (0.022 + wide * near**1.25)

    def draw(self, image: np.ndarray, time: float) -> None:
        view, layout, colors = self.layout.view, self.layout, self.colors
        top = int(layout.horizon)
        inverse = layout.ground(time) / view.oversample  # from the image to the composition
        x = np.arange(view.width, dtype=np.float32)[None] + 0.5
        y = np.arange(top, view.height, dtype=np.float32)[:, None] + 0.5
        x = (inverse[0, 0] * x + inverse[0, 1] * y + inverse[0, 2]).astype(np.float32)
        y = (inverse[1, 1] * y + inverse[1, 2]).astype(np.float32)
        middle, half = self.course(y)
        across = (x - middle) / half
        shore = (1 - np.abs(across)) * half  # pixels to the nearer bank, negative on land
        alpha = np.clip(shore + 0.5, 0, 1) * np.clip(y - layout.horizon + 0.5, 0, 1)
        near = self.near(y)
        # Strokes lie closer together toward the horizon; 0.2 periods of them pass in a second.
        strokes = self.stream.at(across, 0.5 * np.log(near + 0.15) - 0.2 * time)
        clear = smoothstep(0.0, 0.25, near)
        light, dark = smoothstep(0.15, 0.6, strokes) * clear, smoothstep(0.15, 0.7, -strokes) * clear
        water = mix(colors.mist * 0.65 + colors.water * 0.35, colors.mist * 1.04, 0.8 * light)
        tint(image[top:], mix(water, colors.water * 0.8 + colors.line * 0.2, 0.5 * dark), alpha)
        bank = np.exp(-((shore / (0.012 * view.unit)) ** 2)) * np.clip(near * 5, 0, 1)
        tint(image[top:], colors.line, 0.55 * bank)


class Waterfall:
    """A white ribbon that falls through a dark cleft into spray."""

    def __init__(self, layout: Layout, colors: Palette, depth: float) -> None:
        self.layout, self.colors, self.depth = layout, colors, depth
        rng = generator(layout.scene.seed, "waterfall")
        self.stream = Stream(rng, 4, 4)
        self.cliffs = [noise(rng, (1, 64), (1, 7), octaves=2, periodic=False)[0] for _ in range(2)]

    def inverse(self, time: float) -> np.ndarray:
        """Map from the image to coordinates that move with the cliff: units of the upper end."""
        x, y, size = self.layout.seen(self.layout.waterfall[0], self.layout.fall()[0], self.depth, time)
        return np.array([[1, 0, -x], [0, 1, -y]]) / size

    def rocks(self, outside: np.ndarray, share: np.ndarray, left: np.ndarray) -> np.ndarray:
        """Return the ink of the cleft, (h, w), `outside` units from the water, at `share` of its height."""
        wide = [0.020 + 0.012 * np.interp(share[:, 0], np.linspace(0, 1, 64), cliff) for cliff in self.cliffs]
        wide = np.where(left, wide[0][:, None], wide[1][:, None]) * (1.15 - 0.5 * share)
        return np.exp(-((np.maximum(outside, 0) / wide) ** 1.5)) * np.clip(0.85 - 0.35 * share, 0, 1)

    def draw(self, image: np.ndarray, time: float) -> None:
        view, layout, colors, unit = self.layout.view, self.layout, self.colors, self.layout.view.unit
        (x0, y0, size), (_, y1, _) = (layout.seen(layout.waterfall[0], end, self.depth, time) for end in layout.fall())
        left, right = max(int(x0 - 0.2 * unit), 0), min(int(x0 + 0.2 * unit), view.width)
        first, last = max(int(y0 - 0.06 * unit), 0), min(int(y1 + 0.10 * unit), view.height)
        if left >= right:
            return
        part = image[first:last, left:right]
        unit *= size
        # In units from the upper end.
        x = (np.arange(left, right, dtype=np.float32)[None] + np.float32(0.5 - x0)) / np.float32(unit)
        y = (np.arange(first, last, dtype=np.float32)[:, None] + np.float32(0.5 - y0)) / np.float32(unit)
        length = (y1 - y0) / unit
        share = np.clip(y / length, 0, 1)
        half = 0.021 + 0.016 * share**1.5
        x = x - 0.012 * np.sin(9 * y)  # the ribbon winds a little
        outside = np.abs(x) - half
        ends = smoothstep(-0.02, 0.012, y) * (1 - smoothstep(length - 0.06, length + 0.02, y))
        tint(part, colors.line, self.rocks(outside, share, x < 0) * ends)
        ends = smoothstep(-0.010, 0.006, y) * (1 - smoothstep(length - 0.02, length + 0.03, y))
        strokes = self.stream.at(x / half, 1.3 * y + 0 * x - 0.45 * time)
        white = colors.mist * 0.25 + 0.75
        water = mix(white, colors.water * 0.72, 0.75 * smoothstep(0.05, 0.6, strokes))
        tint(part, water, np.clip(0.5 - outside * np.float32(unit), 0, 1) * ends)
        swell = 1 + 0.10 * math.sin(2 * math.pi * 0.7 * time)
        tint(part, white, 0.85 * np.exp(-((x / 0.085) ** 2) - ((y - length) / (0.038 * swell)) ** 2))  # the spray


def draw_mist(view: View, rng: np.random.Generator, colors: Palette, y: float, thickness: float) -> np.ndarray:
    """Draw clouds of mist around the height `y`: rounded, bright above, shaded below, with gaps: canvas pixels.

    `y` and `thickness` are in image pixels.
    """
    field = view.canvas_noise(rng, 4, 2.6, octaves=3)
    offset = (view.y - y) / thickness
    body = np.exp(-(offset**2)) * (0.76 + 0.80 * field)
    alpha = 0.96 * smoothstep(0.16, 0.62, body)
    shade = colors.cloud * 0.35 + colors.mist * 0.51 + colors.far * 0.14
    color = mix(colors.cloud, shade, smoothstep(-0.9, 1.1, offset + 0.5 * field))
    return soften(premultiplied(color, alpha), view)
