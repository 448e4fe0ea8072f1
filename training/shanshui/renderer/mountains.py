"""Layered mountains: ridges, washes that fade down into mist, and texture strokes along the slopes."""

import cv2
import numpy as np

from shanshui.renderer.brushwork import View, generator, mix, noise, premultiplied, smoothstep, soften
from shanshui.renderer.composition import Layout
from shanshui.renderer.palettes import Palette


def depths(layers: int) -> list[float]:
    """Parallax of each mountain layer, far to near."""
    return [0.18 + 0.52 * i / (layers - 1) for i in range(layers)]


def fall_layer(layers: int) -> int:
    """The layer that a waterfall comes down: the tall one in the middle."""
    return 1 if layers == 2 else round((layers - 1) / 2)


def ridge(layout: Layout, layer: int) -> np.ndarray:
    """(columns,) float32 picture y of a layer's skyline."""
    view, scene = layout.view, layout.scene
    rng = generator(scene.seed, "ridge", layer)
    manner = generator(scene.seed, "manner")
    sharpness, rough = manner.uniform(1.1, 1.9), manner.uniform(0.05, 0.10)
    near = layer / (scene.layers - 1)
    height, period = view.height, view.period
    foot = layout.horizon + 0.02 * height
    top = 0.22 * height + rng.uniform(0, 0.04) * height
    # The tallest peak belongs to a middle layer; what is far is lower and wider, what is near lies low at the shore.
    tall = (foot - top) * float(np.interp(near, [0, 0.35, 1], [0.80, 1.0, 0.44]))
    # Neighbouring layers peak on different sides of the massif, or the nearer would hide the farther.
    shift = (0.11 if layer % 2 == scene.seed % 2 else -0.11) + rng.uniform(-0.05, 0.05)
    side = layout.mass[0] + shift * view.width
    if near < 0.2:
        side = view.width - layout.mass[0] * rng.uniform(0.9, 1.3)
    if scene.waterfall and layer == fall_layer(scene.layers):
        side = layout.waterfall[0] + rng.uniform(-0.03, 0.03) * view.unit
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
    return make_room(layout, foot - tall * profile, layer).astype(np.float32)


def make_room(layout: Layout, line: np.ndarray, layer: int) -> np.ndarray:
    """Push a skyline down where it would hide sun, moon, birds or waterfall, and up where water has to fall."""
    view, scene = layout.view, layout.scene

    def about(x: float, reach: float) -> np.ndarray:
        offset = (view.x[0] - x + view.period / 2) % view.period - view.period / 2
        return 1 - smoothstep(reach, 2.2 * reach, np.abs(offset))

    def at_most(line: np.ndarray, x: float, y: float, reach: float) -> np.ndarray:
        """Lower the mountains about x in proportion, so that they keep their shapes and stay below y."""
        nearby = about(x, reach)
        tallest = foot - line[nearby > 0.5].min()
        return foot - (foot - line) * (1 - nearby * max(1 - (foot - y) / tallest, 0))

    foot = layout.horizon + 0.02 * view.height
    if scene.light != "none":
        line = at_most(line, layout.light[0], layout.light[1] + 0.13 * view.unit, 0.15 * view.unit)
    if scene.birds != "none":
        line = at_most(line, layout.birds[0], layout.birds[1] + 0.10 * view.unit, 0.26 * view.unit)
    if scene.pavilion and layer == scene.layers - 1:
        line = at_most(line, layout.pavilion[0], 0.60 * view.height, 0.12 * view.unit)
    if scene.waterfall:
        x, (top, bottom) = layout.waterfall[0], layout.fall()
        middle = fall_layer(scene.layers)
        if layer == middle:
            tall = foot - line[np.abs(view.x[0] - x) < 0.05 * view.unit].max()
            needed = (foot - top + 0.03 * view.unit) / tall
            line = foot - (foot - line) * (1 + about(x, 0.10 * view.unit) * max(needed - 1, 0))
        elif layer > middle:
            line = at_most(line, x, bottom - 0.02 * view.unit, 0.12 * view.unit)
    return line


def paint_mountain(layout: Layout, colours: Palette, layer: int, line: np.ndarray) -> np.ndarray:
    """(rows, columns, 4) canvas of one layer below its skyline `line`."""
    view, scene = layout.view, layout.scene
    rng = generator(scene.seed, "wash", layer)
    first = max(int((line.min() - 0.05 * view.unit) * view.oversample) - 4, 0)
    # Water hides what is below the horizon.
    last = view.rows if scene.water == "none" else int((layout.horizon + 0.04 * view.height) * view.oversample)
    cells = (view.rows / view.oversample / view.unit, view.period / view.unit)
    near = layer / (scene.layers - 1)
    if near > 0.3:
        rise, grove = woods(layout, generator(scene.seed, "woods", layer), line, near)
        bare, line = line, line - view.unit * rise
    slope = np.gradient(line) * np.float32(view.oversample)
    slope = (slope + np.roll(slope, 1) + np.roll(slope, -1)) / 3
    below = view.y[first:last] - line
    alpha = np.clip(below * view.oversample / np.sqrt(1 + np.minimum(slope**2, 9)) + 0.5, 0, 1)
    depth = np.maximum(below, 0) / np.float32(view.unit)
    tone = 0.30 + 0.70 * near**1.1
    wet = noise(rng, (view.rows, view.columns), (2 * cells[0], 2 * cells[1]), octaves=3 + view.detail)[first:last]
    reach = (0.13 + 0.05 * near) * (1 + 0.35 * noise(rng, (1, view.columns), (1, 3 * cells[1]), octaves=2))
    ink = tone * (0.80 * np.exp(-depth / np.maximum(reach, 0.05)) + 0.14) * (1 + 0.28 * wet)
    ink += tone * (0.10 + 0.28 * near) * texture(view, rng, slope, depth, cells) * (1 + 0.5 * wet)
    ink += tone * 0.30 * shoulders(layout, rng, line, first, last)
    dry = 0.75 + 0.45 * noise(rng, (1, view.columns), (1, 8 * cells[1]), octaves=2 + view.detail)
    contour = np.exp(-((depth / 0.010) ** 2)) * np.clip(dry, 0, 1)
    # Ink runs out into mist at the foot of every mountain, and at the shore.
    ink = np.clip(ink, 0, 1) * (1 - 0.85 * smoothstep(0.05, 0.34, depth))
    ink *= 1 - 0.7 * smoothstep(-0.13, 0.0, (view.y[first:last] - layout.horizon) / np.float32(view.unit))
    pigment = mix(colours.slope, colours.ridge, np.exp(-depth / 0.10))
    pigment = mix(pigment, colours.far, np.float32(0.75 * (1 - near) ** 1.3))
    colour = mix(colours.mist, pigment, ink)
    colour = mix(colour, colours.line, contour * np.float32(0.18 + 0.40 * near))
    if near > 0.3:
        crown = grove * (1 - smoothstep(0.0, 0.03, (view.y[first:last] - bare) / np.float32(view.unit)))
        colour = mix(colour, colours.foliage, crown * np.float32(0.25 + 0.55 * near))
    if view.detail and near > 0.3:
        colour = mix(colour, colours.line, 0.6 * moss(layout, generator(scene.seed, "moss", layer), line, first, last))
    canvas = np.zeros((view.rows, view.columns, 4), np.float32)
    canvas[first:last] = soften(premultiplied(colour, alpha), view)
    return canvas


def texture(
    view: View, rng: np.random.Generator, slope: np.ndarray, depth: np.ndarray, cells: tuple[float, float]
) -> np.ndarray:
    """Hemp-fibre strokes: (rows, columns), they run down from the skyline and fan out to both sides of a peak."""
    window = 2 * int(0.03 * view.unit * view.oversample) + 1
    leaning = np.convolve(np.pad(np.tanh(slope * 0.9), window // 2, "wrap"), np.full(window, 1 / window), "valid")
    strokes = noise(rng, (1, view.columns), (1, 16 * cells[1]), octaves=2 + view.detail, gain=0.6)[0]
    origin = view.x - leaning.astype(np.float32) * depth * np.float32(view.unit * 0.9)
    folds = 1 - 2 * np.abs(strokes[(origin * view.oversample).astype(np.int32) % view.columns])
    return folds * np.exp(-depth / 0.13) * smoothstep(0.0, 0.03, depth)


def shoulders(layout: Layout, rng: np.random.Generator, line: np.ndarray, first: int, last: int) -> np.ndarray:
    """Lower ridges within one mountain, each with its own ink below its crest: (last - first, columns)."""
    view = layout.view
    y = view.y[first:last]
    ink = np.zeros((last - first, view.columns), np.float32)
    for k in range(2):
        wander = noise(rng, (1, view.columns), (1, 5 * view.period / view.unit), octaves=4 + view.detail, gain=0.5)[0]
        crest = line + view.unit * (0.05 + 0.07 * k + 0.085 * wander).astype(np.float32)
        below = (y - crest) / np.float32(view.unit)
        # Where a shoulder would rise above the skyline it belongs to, it fades into the skyline's own ink.
        inside = smoothstep(0.0, 0.03, (crest - line) / np.float32(view.unit))
        ink += smoothstep(-0.006, 0.006, below) * np.exp(-np.maximum(below, 0) / 0.055) * inside
    return ink


def moss(layout: Layout, rng: np.random.Generator, line: np.ndarray, first: int, last: int) -> np.ndarray:
    """Dots of ink that gather along a skyline and its folds, (last - first, columns): too fine for small pictures."""
    view = layout.view
    dots = np.zeros((last - first, view.columns), np.uint8)
    cells = (1, 6 * view.period / view.unit)
    gathered = np.flatnonzero(noise(rng, (1, view.columns), cells, octaves=2)[0] > 0.1)
    for _ in range(round(70 * view.period / view.unit)):
        column = int(rng.choice(gathered)) if len(gathered) else int(rng.integers(view.columns))
        down = (0.004 + rng.exponential(0.016)) * view.unit
        centre = np.array([column + 0.5, (line[column] + down) * view.oversample - first])
        axes = np.array([1.5, 1.0]) * view.unit * view.oversample * rng.uniform(0.0014, 0.0034)
        fixed = np.round((centre - 0.5) * 16).astype(int).tolist(), np.round(axes * 16).astype(int).tolist()
        cv2.ellipse(dots, *fixed, rng.uniform(-15, 15), 0, 360, rng.uniform(60, 255), -1, cv2.LINE_AA, 4)
    return dots.astype(np.float32) / 255


def woods(layout: Layout, rng: np.random.Generator, line: np.ndarray, near: float) -> tuple[np.ndarray, np.ndarray]:
    """How far crowns of trees stand above a skyline, and how densely they grow: (columns,) units and 0 to 1.

    They grow in valleys and on low hills; peaks stay bare.
    """
    view = layout.view
    cells = view.period / view.unit
    grove = smoothstep(0.05, 0.55, noise(rng, (1, view.columns), (1, 2.5 * cells), octaves=2)[0])
    grove = grove * smoothstep(0.0, 0.10, (line - np.quantile(line, 0.35)) / view.unit)
    crowns = np.abs(noise(rng, (1, view.columns), (1, 16 * cells), octaves=2 + view.detail, gain=0.5)[0])
    return grove * (0.006 + 0.036 * np.sqrt(crowns)) * (0.5 + 0.5 * near), grove
