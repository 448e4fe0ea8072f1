"""Draw layered mountains and what flows between them: lake, river, waterfall and mist.

Mountains have skylines, washes that fade into mist below, and texture strokes along the slopes.
"""

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
    if layout.composed.waterfall and layer == fall_layer(scene.layers):
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
    view, scene, foot, unit = layout.view, layout.composed, layout.foot, layout.view.unit
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
        wide = 0.34 if layout.composed.boat != "none" else 0.24
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
