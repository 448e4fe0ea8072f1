"""Lake, river and mist: what flows."""

import cv2
import numpy as np
from brushwork import View, generator, lay_over, noise, premultiplied, sample, smoothstep, soften
from composition import Layout
from palettes import Palette


def ripple_canvas(view: View, rng: np.random.Generator, colours: Palette) -> np.ndarray:
    """(rows, columns, 4) canvas of level strokes, light and dark, for the surface of water."""
    shape = (view.rows, view.columns)
    cells = (26 * view.rows / view.oversample / view.unit, 3 * view.period / view.unit)
    field = noise(rng, shape, cells, octaves=2, gain=0.4)
    light = smoothstep(0.35, 0.85, field)
    dark = smoothstep(0.30, 0.85, -field)
    alpha = np.maximum(0.60 * light, 0.38 * dark)
    colour = np.where((light > dark)[..., None], colours.mist, colours.water * 0.72 + colours.line * 0.28)
    return soften(premultiplied(colour, alpha), view)


class Lake:
    """Still water that mirrors what stands above the horizon, broken by ripples."""

    depth = 0.55

    def __init__(self, layout: Layout, colours: Palette) -> None:
        self.layout, self.colours = layout, colours
        self.ripples = ripple_canvas(layout.view, generator(layout.scene.seed, "ripples"), colours)

    def lay(self, picture: np.ndarray, time: float) -> None:
        view, horizon = self.layout.view, self.layout.horizon
        top = int(horizon)
        rows = view.height - top
        y = np.arange(top, view.height, dtype=np.float32)[:, None] + 0.5
        below = (y - horizon) / view.unit
        x = np.arange(view.width, dtype=np.float32)[None] + 0.5
        phase = 2 * np.pi * (0.6 * time - 1.4 * np.sqrt(np.maximum(below, 0)) * 9)
        sway = view.unit * 0.05 * np.maximum(below, 0) * np.sin(phase)
        mirror = cv2.remap(
            picture[:top],
            np.broadcast_to(x - 0.5 + sway, (rows, view.width)).astype(np.float32),
            np.broadcast_to(horizon - 1.15 * (y - horizon) - 0.5, (rows, view.width)).astype(np.float32),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        mirror = cv2.GaussianBlur(mirror, (0, 0), 0.012 * view.unit, sigmaY=0.02 * view.unit)
        away = smoothstep(0.0, 0.34, below)[..., None]
        base = self.colours.mist * 0.55 + self.colours.water * 0.45 + (self.colours.water - self.colours.mist) * away * 0.45
        water = base + (mirror - base) * (0.62 * (1 - 0.75 * away))
        edge = np.clip(y - horizon + 0.5, 0, 1)[..., None]
        picture[top:] += (water - picture[top:]) * edge
        inverse = self.layout.inverse(self.depth, time, foot=1.0)
        inverse[0, 2] += 0.02 * view.unit * view.oversample * time
        strokes = sample(self.ripples, inverse, (view.height, view.width))[top:]
        fade = 0.35 + 0.65 * smoothstep(0.0, 0.2, below)[..., None]
        lay_over(picture[top:], strokes * (edge * fade))


def mist_canvas(view: View, rng: np.random.Generator, colours: Palette, y: float, thickness: float) -> np.ndarray:
    """(rows, columns, 4) canvas of a bank of mist about the height `y`, in banks with soft, rounded upper edges."""
    shape = (view.rows, view.columns)
    field = noise(rng, shape, (3 * view.rows / view.oversample / view.unit, 1.6 * view.period / view.unit), octaves=3)
    offset = (view.y - y) / thickness
    body = np.exp(-(offset**2))
    alpha = 0.92 * smoothstep(0.25, 1.05, body * (1.0 + 0.85 * field))
    return soften(premultiplied(colours.mist * 0.6 + np.minimum(colours.mist * 1.06, 1) * 0.4, alpha), view)
