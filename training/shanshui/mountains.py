"""Layered mountains: ridges, washes that fade down into mist, and texture strokes along the slopes."""

import numpy as np
from brushwork import View, generator, noise, premultiplied, smoothstep, soften
from composition import Layout
from palettes import Palette


def depths(layers: int) -> list[float]:
    """Parallax of each mountain layer, far to near."""
    return [0.18 + 0.52 * i / (layers - 1) for i in range(layers)]


def ridge(layout: Layout, layer: int) -> np.ndarray:
    """(columns,) picture y of a layer's skyline."""
    view, scene = layout.view, layout.scene
    rng = generator(scene.seed, "ridge", layer)
    manner = generator(scene.seed, "manner")
    sharpness, rough = manner.uniform(1.1, 1.9), manner.uniform(0.05, 0.10)
    near = layer / (scene.layers - 1)
    height, period = view.height, view.period
    foot = layout.horizon + 0.02 * height
    top = 0.22 * height + rng.uniform(0, 0.04) * height
    # The tallest peak belongs to a middle layer; what is far is lower and wider, what is near lies low at the shore.
    tall = (foot - top) * np.interp(near, [0, 0.45, 1], [0.78, 1.0, 0.48])
    side = layout.mass[0] + rng.uniform(-0.08, 0.08) * view.width
    if near < 0.2:
        side = view.width - layout.mass[0] * rng.uniform(0.9, 1.3)
    centres = [side, *(side + period * (k + rng.uniform(0.3, 0.7)) / 5 for k in range(5))]
    sizes = [1.0, *rng.uniform(0.30, 0.62, 5)]
    profile = np.zeros(view.columns, np.float32)
    for centre, size in zip(centres, sizes, strict=True):
        offset = (view.x[0] - centre + period / 2) % period - period / 2
        spread = view.unit * rng.uniform(0.16, 0.24) * (0.7 + 0.5 * size) * (1.25 - 0.3 * near)
        lean = rng.uniform(0.75, 1.35)
        shape = np.exp(-((np.abs(offset) / (spread * np.where(offset > 0, lean, 1 / lean))) ** sharpness))
        profile = np.maximum(profile, size * shape) + 0.18 * np.minimum(profile, size * shape)
    cells = (1, 3 * period / view.unit)
    crags = noise(rng, (1, view.columns), cells, octaves=6, gain=0.52)[0]
    profile = 0.16 + 0.84 * np.minimum(profile, 1.08) + rough * crags * (0.35 + profile)
    line = foot - tall * profile
    return clear_sky(layout, line, near)


def clear_sky(layout: Layout, line: np.ndarray, near: float) -> np.ndarray:
    """Push a skyline down where something else has to be seen."""
    view, scene = layout.view, layout.scene

    def below(line: np.ndarray, x: float, y: float, reach: float) -> np.ndarray:
        offset = (view.x[0] - x + view.period / 2) % view.period - view.period / 2
        limit = y - view.height * (1 - smoothstep(0.5 * reach, 1.3 * reach, np.abs(offset))) * 0
        weight = 1 - smoothstep(reach, 2.2 * reach, np.abs(offset))
        return line + weight * np.maximum(limit - line, 0)

    if scene.light != "none":
        line = below(line, layout.light[0], layout.light[1] + 0.13 * view.unit, 0.13 * view.unit)
    return line


def paint_mountain(layout: Layout, colours: Palette, layer: int, line: np.ndarray) -> np.ndarray:
    """(rows, columns, 4) canvas of one layer below its skyline `line`."""
    view, scene = layout.view, layout.scene
    rng = generator(scene.seed, "wash", layer)
    shape = (view.rows, view.columns)
    cells = (view.rows / view.oversample / view.unit, view.period / view.unit)
    near = layer / (scene.layers - 1)
    slope = np.gradient(line) * view.oversample
    slope = (slope + np.roll(slope, 1) + np.roll(slope, -1)) / 3
    below = view.y - line
    alpha = np.clip(below * view.oversample / np.sqrt(1 + np.minimum(slope**2, 9)) + 0.5, 0, 1)
    depth = np.maximum(below, 0) / view.unit
    tone = 0.30 + 0.70 * near**1.1
    wet = noise(rng, shape, (2 * cells[0], 2 * cells[1]), octaves=3)
    reach = (0.13 + 0.05 * near) * (1 + 0.35 * noise(rng, (1, view.columns), (1, 3 * cells[1]), octaves=2))
    wash = np.exp(-depth / np.maximum(reach, 0.05))
    ink = tone * (0.80 * wash + 0.14) * (1 + 0.28 * wet)
    ink += tone * texture(view, rng, line, slope, depth, cells) * (0.10 + 0.28 * near)
    dry = 0.75 + 0.45 * noise(rng, (1, view.columns), (1, 8 * cells[1]), octaves=2)
    contour = np.exp(-((depth / 0.010) ** 2)) * np.clip(dry, 0, 1)
    foot = smoothstep(0.05, 0.34, depth)
    shore = smoothstep(-0.13, 0.0, (view.y - layout.horizon) / view.unit)
    ink = np.clip(ink, 0, 1) * (1 - 0.85 * foot) * (1 - 0.7 * shore)
    pigment = colours.slope + (colours.ridge - colours.slope) * np.exp(-depth / 0.10)[..., None]
    pigment += (colours.far - pigment) * np.float32(0.75 * (1 - near) ** 1.3)
    colour = colours.mist + (pigment - colours.mist) * ink[..., None]
    colour += (colours.line - colour) * (contour * (0.18 + 0.40 * near))[..., None]
    return soften(premultiplied(colour, alpha), view)


def texture(view: View, rng: np.random.Generator, line, slope, depth, cells) -> np.ndarray:
    """Hemp-fibre strokes: (rows, columns), they run down from the skyline and fan out to both sides of a peak."""
    smooth = np.tanh(slope * 0.9)
    smooth = np.convolve(np.tile(smooth, 3), np.ones(15) / 15, "same")[view.columns : 2 * view.columns]
    strokes = noise(rng, (1, view.columns), (1, 16 * cells[1]), octaves=2, gain=0.6)[0]
    origin = view.x - smooth * depth * view.unit * 0.9
    index = (origin * view.oversample).astype(np.int32) % view.columns
    folds = 1 - 2 * np.abs(strokes[index])
    return folds * np.exp(-depth / 0.16) * smoothstep(0.0, 0.03, depth)
