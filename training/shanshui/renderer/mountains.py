"""Draw layered mountains: skylines, washes that fade into mist below, and texture strokes along the slopes."""

import cv2
import numpy as np

from shanshui.renderer.brushwork import Palette, View, generator, mix, premultiplied, smoothstep, soften
from shanshui.renderer.composition import Layout


def depths(layers: int) -> list[float]:
    """Return the parallax of each mountain layer from far to near, between 0 (far) and 1 (near)."""
    return [0.18 + 0.52 * i / (layers - 1) for i in range(layers)]


def fall_layer(layers: int) -> int:
    """Return the layer that a waterfall comes down: the tall one in the middle."""
    return 1 if layers == 2 else round((layers - 1) / 2)


def ridge(layout: Layout, layer: int) -> np.ndarray:
    """Return the skyline of a layer: (columns,) float32, image y of each canvas column."""
    view, scene = layout.view, layout.scene
    rng = generator(scene.seed, "ridge", layer)
    manner = generator(scene.seed, "manner")
    sharpness, rough = manner.uniform(1.1, 1.9), manner.uniform(0.05, 0.10)
    near = layer / (scene.layers - 1)  # 0 for the farthest layer, 1 for the nearest
    foot = layout.foot
    top = 0.22 * view.height + rng.uniform(0, 0.04) * view.height
    # The tallest peak belongs to a middle layer; far layers are lower and wider, near ones stay low at the shore.
    tall = (foot - top) * float(np.interp(near, [0, 0.35, 1], [0.80, 1.0, 0.44]))
    # Neighboring layers peak on different sides of the massif, or the nearer would hide the farther.
    shift = (0.11 if layer % 2 == scene.seed % 2 else -0.11) + rng.uniform(-0.05, 0.05)
    side = layout.mass[0] + shift * view.width
    if near < 0.2:
        side = view.width - layout.mass[0] * rng.uniform(0.9, 1.3)
    if scene.waterfall and layer == fall_layer(scene.layers):
        side = layout.waterfall[0] + rng.uniform(-0.03, 0.03) * view.unit
    centers = [side, *(side + view.period * (k + rng.uniform(0.3, 0.7)) / 5 for k in range(5))]
    profile = np.zeros(view.columns, np.float32)
    for center, size in zip(centers, [1.0, *rng.uniform(0.30, 0.62, 5)], strict=True):
        offset = layout.across(center)
        spread = view.unit * rng.uniform(0.16, 0.24) * (0.7 + 0.5 * size) * (1.25 - 0.3 * near)
        lean = rng.uniform(0.75, 1.35)
        shape = np.exp(-((np.abs(offset) / (spread * np.where(offset > 0, lean, 1 / lean))) ** sharpness))
        profile = np.maximum(profile, size * shape) + 0.18 * np.minimum(profile, size * shape)
    crags = view.line_noise(rng, 3, octaves=6, gain=0.52, detailed=False)
    profile = 0.16 + 0.84 * np.minimum(profile, 1.08) + rough * crags * (0.35 + profile)
    return make_room(layout, foot - tall * profile, layer).astype(np.float32)


def make_room(layout: Layout, line: np.ndarray, layer: int) -> np.ndarray:
    """Lower a skyline where it would hide the light, birds, pavilion or waterfall; raise it where water must fall."""
    view, scene, foot, unit = layout.view, layout.scene, layout.foot, layout.view.unit
    middle, (x_fall, _), (top, bottom) = fall_layer(scene.layers), layout.waterfall, layout.fall()

    def nearby(x: float, reach: float) -> np.ndarray:
        """1 within `reach` pixels of x, falling to 0 at 2.2 times that."""
        return 1 - smoothstep(reach, 2.2 * reach, np.abs(layout.across(x)))

    # Where the mountains must stay below y: whether it applies, x, y and reach in pixels.
    limits = (
        (scene.light != "none", layout.light[0], layout.light[1] + 0.13 * unit, 0.15 * unit),
        (scene.birds != "none", layout.birds[0], layout.birds[1] + 0.10 * unit, 0.26 * unit),
        (scene.pavilion and layer == scene.layers - 1, layout.pavilion[0], 0.60 * view.height, 0.12 * unit),
        (scene.waterfall and layer > middle, x_fall, bottom - 0.02 * unit, 0.12 * unit),
    )
    for applies, x, y, reach in limits:
        if applies:
            weight = nearby(x, reach)
            tallest = foot - line[weight > 0.5].min()
            # In proportion, so that the mountains keep their shapes.
            line = foot - (foot - line) * (1 - weight * max(1 - (foot - y) / tallest, 0))
    if scene.waterfall and layer == middle:
        tall = foot - line[np.abs(view.x[0] - x_fall) < 0.05 * unit].max()
        needed = (foot - top + 0.03 * unit) / tall
        line = foot - (foot - line) * (1 + nearby(x_fall, 0.10 * unit) * max(needed - 1, 0))
    return line


def draw_mountain(layout: Layout, colors: Palette, layer: int, line: np.ndarray) -> np.ndarray:
    """Draw one layer below its skyline `line`: (rows, columns, 4) canvas pixels."""
    view, scene = layout.view, layout.scene
    unit = np.float32(view.unit)
    rng = generator(scene.seed, "wash", layer)
    first = max(int((line.min() - 0.05 * view.unit) * view.oversample) - 4, 0)
    # Water hides what is below the horizon.
    last = view.rows if scene.water == "none" else int((layout.horizon + 0.04 * view.height) * view.oversample)
    y = view.y[first:last]
    near = layer / (scene.layers - 1)
    bare = line
    if near > 0.3:
        rise, grove = woods(view, generator(scene.seed, "woods", layer), line, near)
        line = line - view.unit * rise
    slope = np.gradient(line) * np.float32(view.oversample)
    slope = (slope + np.roll(slope, 1) + np.roll(slope, -1)) / 3
    below = y - line
    alpha = np.clip(below * view.oversample / np.sqrt(1 + np.minimum(slope**2, 9)) + 0.5, 0, 1)
    depth = np.maximum(below, 0) / unit
    tone = 0.30 + 0.70 * near**1.1
    wet = view.canvas_noise(rng, 2, 2, octaves=3)[first:last]
    reach = (0.13 + 0.05 * near) * (1 + 0.35 * view.line_noise(rng, 3, octaves=2, detailed=False))
    ink = tone * (0.80 * np.exp(-depth / np.maximum(reach, 0.05)) + 0.14) * (1 + 0.28 * wet)
    ink += tone * (0.10 + 0.28 * near) * texture(view, rng, slope, depth) * (1 + 0.5 * wet)
    ink += tone * 0.30 * shoulders(view, rng, line, y)
    dry = 0.75 + 0.45 * view.line_noise(rng, 8, octaves=2)
    contour = np.exp(-((depth / 0.010) ** 2)) * np.clip(dry, 0, 1)
    # Ink runs out into mist at the foot of every mountain, and at the shore.
    ink = np.clip(ink, 0, 1) * (1 - 0.85 * smoothstep(0.05, 0.34, depth))
    ink *= 1 - 0.7 * smoothstep(-0.13, 0.0, (y - layout.horizon) / unit)
    pigment = mix(colors.slope, colors.ridge, np.exp(-depth / 0.10))
    pigment = mix(pigment, colors.far, np.float32(0.75 * (1 - near) ** 1.3))
    color = mix(colors.mist, pigment, ink)
    color = mix(color, colors.line, contour * np.float32(0.18 + 0.40 * near))
    if near > 0.3:
        crown = grove * (1 - smoothstep(0.0, 0.03, (y - bare) / unit))
        color = mix(color, colors.foliage, crown * np.float32(0.25 + 0.55 * near))
    if view.detail and near > 0.3:
        color = mix(color, colors.line, 0.6 * moss(view, generator(scene.seed, "moss", layer), line, first, last))
    pixels = np.zeros((view.rows, view.columns, 4), np.float32)
    pixels[first:last] = soften(premultiplied(color, alpha), view)
    return pixels


def texture(view: View, rng: np.random.Generator, slope: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Draw hemp-fiber strokes, (rows, columns): they run down from the skyline and fan out to both sides of a peak."""
    window = 2 * int(0.03 * view.unit * view.oversample) + 1  # canvas pixels over which the slope is averaged
    leaning = np.convolve(np.pad(np.tanh(slope * 0.9), window // 2, "wrap"), np.full(window, 1 / window), "valid")
    strokes = view.line_noise(rng, 16, octaves=2, gain=0.6)
    origin = view.x - leaning.astype(np.float32) * depth * np.float32(view.unit * 0.9)
    folds = 1 - 2 * np.abs(strokes[(origin * view.oversample).astype(np.int32) % view.columns])
    return folds * np.exp(-depth / 0.13) * smoothstep(0.0, 0.03, depth)


def shoulders(view: View, rng: np.random.Generator, line: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Draw lower ridges within one mountain, each with its own ink below its crest: (rows, columns)."""
    ink = np.zeros((len(y), view.columns), np.float32)
    for k in range(2):
        wander = view.line_noise(rng, 5, octaves=4, gain=0.5)
        crest = line + view.unit * (0.05 + 0.07 * k + 0.085 * wander).astype(np.float32)
        below = (y - crest) / np.float32(view.unit)
        # Where a shoulder would rise above the skyline it belongs to, it fades into the skyline's own ink.
        inside = smoothstep(0.0, 0.03, (crest - line) / np.float32(view.unit))
        ink += smoothstep(-0.006, 0.006, below) * np.exp(-np.maximum(below, 0) / 0.055) * inside
    return ink


def moss(view: View, rng: np.random.Generator, line: np.ndarray, first: int, last: int) -> np.ndarray:
    """Draw dots of ink that gather along a skyline and its folds, (last - first, columns).

    They are too fine for small images.
    """
    dots = np.zeros((last - first, view.columns), np.uint8)
    gathered = np.flatnonzero(view.line_noise(rng, 6, octaves=2, detailed=False) > 0.1)
    for _ in range(round(70 * view.period / view.unit)):
        column = int(rng.choice(gathered)) if len(gathered) else int(rng.integers(view.columns))
        down = (0.004 + rng.exponential(0.016)) * view.unit
        center = np.array([column + 0.5, (line[column] + down) * view.oversample - first])
        axes = np.array([1.5, 1.0]) * view.unit * view.oversample * rng.uniform(0.0014, 0.0034)
        fixed = np.round((center - 0.5) * 16).astype(int).tolist(), np.round(axes * 16).astype(int).tolist()
        cv2.ellipse(dots, *fixed, rng.uniform(-15, 15), 0, 360, rng.uniform(60, 255), -1, cv2.LINE_AA, 4)
    return dots.astype(np.float32) / 255


def woods(view: View, rng: np.random.Generator, line: np.ndarray, near: float) -> tuple[np.ndarray, np.ndarray]:
    """Return how far tree crowns rise above a skyline, in units, and how dense they are, 0 to 1: (columns,) each.

    They grow in valleys and on low hills; peaks stay bare.
    """
    grove = smoothstep(0.05, 0.55, view.line_noise(rng, 2.5, octaves=2, detailed=False))
    grove = grove * smoothstep(0.0, 0.10, (line - np.quantile(line, 0.35)) / view.unit)
    crowns = np.abs(view.line_noise(rng, 16, octaves=2, gain=0.5))
    return grove * (0.006 + 0.036 * np.sqrt(crowns)) * (0.5 + 0.5 * near), grove
