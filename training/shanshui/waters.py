"""Lake, river, waterfall and mist: what flows."""

import cv2
import numpy as np
from brushwork import Canvas, View, generator, lay_over, noise, premultiplied, smoothstep, soften
from composition import Layout
from palettes import Palette


def ripple_canvas(view: View, rng: np.random.Generator, colours: Palette) -> Canvas:
    """Level strokes, light and dark, for the surface of still water."""
    shape = (view.rows, view.columns)
    cells = (26 * view.rows / view.oversample / view.unit, 3 * view.period / view.unit)
    field = noise(rng, shape, cells, octaves=2, gain=0.4)
    light = smoothstep(0.35, 0.85, field)
    dark = smoothstep(0.30, 0.85, -field)
    alpha = np.maximum(0.60 * light, 0.38 * dark)
    colour = np.where((light > dark)[..., None], colours.mist, colours.water * 0.72 + colours.line * 0.28)
    return Canvas(soften(premultiplied(colour, alpha), view), view)


class Lake:
    """Still water that mirrors what stands above the horizon, broken by ripples."""

    def __init__(self, layout: Layout, colours: Palette) -> None:
        self.layout, self.colours = layout, colours
        self.ripples = ripple_canvas(layout.view, generator(layout.scene.seed, "ripples"), colours)

    def mirror(self, picture: np.ndarray, below: np.ndarray, time: float) -> np.ndarray:
        """(rows, w, 3) upside-down, swaying image of what `picture` shows above the horizon."""
        view, horizon = self.layout.view, self.layout.horizon
        x = np.arange(view.width, dtype=np.float32)[None]
        distance = np.maximum(below, 0)
        sway = view.unit * 0.05 * distance * np.sin(2 * np.pi * (0.6 * time - 12.6 * np.sqrt(distance)))
        down = horizon - 1.15 * below * view.unit - 0.5 + 0 * x
        maps = (x + sway).astype(np.float32), down.astype(np.float32)
        mirror = cv2.remap(picture[: int(horizon)], *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return cv2.GaussianBlur(mirror, (0, 0), 0.012 * view.unit, sigmaY=0.02 * view.unit)

    def lay(self, picture: np.ndarray, time: float) -> None:
        view, horizon, colours = self.layout.view, self.layout.horizon, self.colours
        top = int(horizon)
        y = np.arange(view.height, dtype=np.float32)[:, None] + 0.5
        below = (y - np.float32(horizon)) / np.float32(view.unit)
        edge = np.clip(y - horizon + 0.5, 0, 1)[..., None]
        away = smoothstep(0.0, 0.34, below)[top:, :, None]
        base = colours.mist + (colours.water - colours.mist) * (0.45 + 0.45 * away)
        water = base + (self.mirror(picture, below[top:], time) - base) * (0.62 * (1 - 0.75 * away))
        picture[top:] += (water - picture[top:]) * edge[top:]
        inverse = self.layout.inverse(0.55, time, foot=1.0)
        inverse[0, 2] += 0.02 * view.unit * view.oversample * time
        self.ripples.lay(picture, inverse, edge * (0.35 + 0.65 * smoothstep(0.0, 0.2, below))[..., None])


class Stream:
    """A texture that repeats along its rows, looked up at (across, along): the strokes of flowing water."""

    def __init__(self, rng: np.random.Generator, across: float, along: float) -> None:
        field = noise(rng, (128, 512), (across, along), octaves=2, gain=0.5)
        self.texture = np.concatenate([field, field[:, :1]], axis=1)

    def at(self, across: np.ndarray, along: np.ndarray) -> np.ndarray:
        """Value, about -1 to 1, at `across` from -1 to 1 and any `along` (repeats after 1)."""
        across, along = np.broadcast_arrays((across + 1) * 63.5, along % 1 * 512)
        return cv2.remap(
            self.texture, along.astype(np.float32), across.astype(np.float32), cv2.INTER_LINEAR, None,
            cv2.BORDER_REPLICATE,
        )  # fmt: skip


class River:
    """Land to the horizon, and a river that winds through it towards the viewer."""

    def __init__(self, layout: Layout, colours: Palette) -> None:
        self.layout, self.colours = layout, colours
        rng = generator(layout.scene.seed, "river")
        self.phase, self.bend = rng.uniform(-0.4, 0.4), rng.choice([-1, 1])
        self.stream = Stream(rng, 5, 8)
        self.land = self.paint_land(rng)

    def paint_land(self, rng: np.random.Generator) -> Canvas:
        view, horizon, colours = self.layout.view, self.layout.horizon, self.colours
        shape = (view.rows, view.columns)
        cells = (9 * view.rows / view.oversample / view.unit, 1.5 * view.period / view.unit)
        field = noise(rng, shape, cells, octaves=3)
        below = (view.y - horizon) / view.unit
        ink = np.clip((0.16 + 0.50 * smoothstep(0.0, 0.40, below)) * (1 + 0.5 * field), 0, 1)
        colour = colours.mist + (colours.slope * 0.8 + colours.ridge * 0.2 - colours.mist) * ink[..., None]
        alpha = np.clip((view.y - horizon) * view.oversample + 0.5, 0, 1) + np.zeros(shape, np.float32)
        return Canvas(soften(premultiplied(colour, alpha).astype(np.float32), view), view)

    def course(self, y: np.ndarray | float) -> tuple[np.ndarray | float, np.ndarray | float]:
        """x of the river's middle and half its width, at the height `y` of the composition."""
        view, layout = self.layout.view, self.layout
        near = np.clip((y - layout.horizon) / (view.height - layout.horizon), 0, 1.3)
        wide = 0.34 if layout.scene.boat != "none" else 0.24
        turn = np.sin(self.phase + 6.0 * near**0.7) * (0.05 + 0.17 * near * (1.35 - near))
        return layout.river[0] + self.bend * view.unit * turn, view.unit * (0.022 + wide * near**1.25)

    def lay(self, picture: np.ndarray, time: float) -> None:
        view, layout, colours = self.layout.view, self.layout, self.colours
        inverse = layout.inverse(0.55, time, foot=1.0)
        self.land.lay(picture, inverse)
        top = int(layout.horizon)
        inverse = inverse / view.oversample
        x = np.arange(view.width)[None] + 0.5
        y = np.arange(top, view.height)[:, None] + 0.5
        x = inverse[0, 0] * x + inverse[0, 1] * y + inverse[0, 2]
        y = inverse[1, 1] * y + inverse[1, 2]
        middle, half = self.course(y)
        across = (x - middle) / half
        shore = (1 - np.abs(across)) * half  # pixels inside the river
        alpha = (np.clip(shore + 0.5, 0, 1) * np.clip(y - layout.horizon + 0.5, 0, 1)).astype(np.float32)[..., None]
        near = np.clip((y - layout.horizon) / (view.height - layout.horizon), 0, 1.3)
        strokes = self.stream.at(across, 0.5 * np.log(near + 0.15) - 0.2 * time)
        clear = smoothstep(0.0, 0.25, near)
        light, dark = smoothstep(0.15, 0.6, strokes) * clear, smoothstep(0.15, 0.7, -strokes) * clear
        water = colours.mist * (1 - 0.35) + colours.water * 0.35
        water = water + (colours.mist * 1.04 - water) * (0.8 * light)[..., None]
        water = water + (colours.water * 0.8 + colours.line * 0.2 - water) * (0.5 * dark)[..., None]
        picture[top:] += (water - picture[top:]) * alpha
        bank = np.exp(-((np.abs(shore) / (0.012 * view.unit)) ** 2)) * np.clip(near * 5, 0, 1) * 0.55
        picture[top:] += (colours.line - picture[top:]) * bank.astype(np.float32)[..., None]


class Waterfall:
    """A white ribbon that falls between dark rocks into spray."""

    def __init__(self, layout: Layout, colours: Palette, depth: float) -> None:
        self.layout, self.colours, self.depth = layout, colours, depth
        self.stream = Stream(generator(layout.scene.seed, "waterfall"), 4, 4)

    def lay(self, picture: np.ndarray, time: float) -> None:
        view, layout, unit = self.layout.view, self.layout, self.layout.view.unit
        top, bottom = layout.fall()
        x0, y0, size = layout.seen(layout.waterfall[0], top, self.depth, time)
        x1, y1, _ = layout.seen(layout.waterfall[0], bottom, self.depth, time)
        left, right = max(int(x0 - 0.2 * unit), 0), min(int(x0 + 0.2 * unit), view.width)
        first, last = max(int(y0 - 0.05 * unit), 0), min(int(y1 + 0.10 * unit), view.height)
        if left >= right:
            return
        part = picture[first:last, left:right]
        x = (np.arange(left, right, dtype=np.float32)[None] + 0.5 - x0) / (unit * size)
        y = (np.arange(first, last, dtype=np.float32)[:, None] + 0.5 - y0) / (unit * size)
        length = (y1 - y0) / (unit * size)
        half = 0.021 + 0.016 * np.clip(y / length, 0, 1) ** 1.5
        bend = 0.012 * np.sin(9 * y)
        across = (x - bend) / half
        inside = np.clip((1 - np.abs(across)) * half * unit + 0.5, 0, 1)
        ends = smoothstep(-0.012, 0.006, y) * (1 - smoothstep(length - 0.02, length + 0.03, y))
        rocks = np.exp(-(((np.abs(x - bend) - half - 0.012) / 0.018) ** 2)) * ends
        part += (self.colours.line - part) * (0.62 * rocks)[..., None]
        strokes = self.stream.at(across, 1.3 * y + 0 * x - 0.45 * time)
        white = np.minimum(self.colours.mist * 1.12 + 0.06, 1)
        shade = white + (self.colours.water * 0.72 - white) * (0.75 * smoothstep(0.05, 0.6, strokes))[..., None]
        part += (shade - part) * (inside * ends)[..., None]
        swell = 1 + 0.10 * np.sin(2 * np.pi * 0.7 * time)
        spray = np.exp(-((x / 0.085) ** 2 + ((y - length) / (0.038 * swell)) ** 2))
        part += (white - part) * (0.85 * spray)[..., None]


def mist_canvas(view: View, rng: np.random.Generator, colours: Palette, y: float, thickness: float) -> Canvas:
    """Clouds of mist about the height `y`, with soft, rounded edges and gaps between them."""
    shape = (view.rows, view.columns)
    field = noise(rng, shape, (5 * view.rows / view.oversample / view.unit, 2 * view.period / view.unit), octaves=3)
    band = np.exp(-(((view.y - y) / thickness) ** 2))
    alpha = 0.95 * smoothstep(0.15, 0.75, band * (0.62 + 0.9 * field))
    white = np.minimum(colours.mist * 1.05 + 0.02, 1)
    return Canvas(soften(premultiplied(white, alpha), view), view)
