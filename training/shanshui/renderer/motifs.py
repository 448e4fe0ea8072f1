"""Draw the motifs of a scene: things of the landscape as sprites, and many small things in the air.

Birds, rain, snowflakes and petals are redrawn for every frame.

Coordinates are in units from the anchor of a sprite, x to the right and y down.
"""

import math
from collections.abc import Sequence

import cv2
import numpy as np

from shanshui.renderer.brushwork import (
    Palette,
    Sprite,
    View,
    generator,
    premultiplied,
    rasterize,
    rgb,
    smoothstep,
    soften,
    tint,
)
from shanshui.renderer.composition import Layout
from shanshui.renderer.scene import Scene


Points = Sequence[tuple[float, float]] | np.ndarray


class Sheet:
    """An empty sheet to draw a sprite on; `left`, `top`, `right` and `bottom` are its borders."""

    def __init__(self, view: View, left: float, top: float, right: float, bottom: float) -> None:
        self.view = view
        self.scale = view.oversample
        self.unit = view.unit * self.scale  # sheet pixels in a unit
        self.anchor = np.array([-left, -top]) * self.unit + 2
        columns, rows = np.ceil(np.array([right - left, bottom - top]) * self.unit).astype(int) + 4
        self.pixels = np.zeros((rows, columns, 4), np.float32)

    def draw(self, points: Points, color: np.ndarray, opacity: float = 1.0, width: float | None = None) -> None:
        """Fill a polygon of (x, y) points, or draw a line through them that is `width` units wide."""
        points = np.asarray(points, float) * self.unit + self.anchor
        edge = 2 + (width or 0) * self.unit / 2
        left, top = np.maximum(np.floor(points.min(0) - edge).astype(int), 0)
        right, bottom = np.minimum(np.ceil(points.max(0) + edge).astype(int), self.pixels.shape[1::-1])
        size = int(bottom - top), int(right - left)
        coverage = rasterize([points - (left, top)], size, 3, None if width is None else width * self.unit)
        alpha = coverage.astype(np.float32) * np.float32(opacity / 255)
        self.lay(color, alpha, slice(top, bottom), slice(left, right))

    def draw_all(self, *shapes: tuple) -> None:
        """Draw several shapes, each given by the arguments of `draw`."""
        for shape in shapes:
            self.draw(*shape)

    def lay(
        self, color: np.ndarray, alpha: np.ndarray, rows: slice = slice(None), columns: slice = slice(None)
    ) -> None:
        """Lay a color over (a part of) the sheet with opacity `alpha` (h, w)."""
        below = cv2.multiply(self.pixels[rows, columns], cv2.merge([1 - alpha] * 4))
        self.pixels[rows, columns] = cv2.add(below, premultiplied(color, alpha))

    def coordinates(self) -> tuple[np.ndarray, np.ndarray]:
        """Return x, (1, w), and y, (h, 1), of the sheet's pixels, in sheet pixels from the anchor."""
        rows, columns = self.pixels.shape[:2]
        return (np.arange(columns) + 0.5 - self.anchor[0])[None], (np.arange(rows) + 0.5 - self.anchor[1])[:, None]

    def sprite(self) -> Sprite:
        return Sprite(soften(self.pixels, self.view), tuple(self.anchor), self.scale)


def light_sprite(view: View, scene: Scene, colors: Palette) -> Sprite:
    """Draw a red sun in a glow, or a pale moon in a dark wash that sets it off; the anchor is its center."""
    sheet = Sheet(view, -0.22, -0.22, 0.22, 0.22)
    radius = np.hypot(*sheet.coordinates()).astype(np.float32) / sheet.unit
    sun = scene.light == "sun"
    wash, opacity, reach = rgb("f0603a"), 0.45, 0.095
    if not sun:
        wash, opacity, reach = colors.sky * 0.62 + colors.line * 0.2, 0.62, 0.105
    sheet.lay(wash, opacity * np.exp(-((radius / reach) ** 2)))
    disc = np.clip((0.062 - radius) * sheet.unit + 0.5, 0, 1)
    sheet.lay(rgb("d2301c" if sun else "fffbe9"), disc)
    return sheet.sprite()


def boat_sprite(view: View, colors: Palette) -> Sprite:
    """Draw a sampan with a matted roof and a standing boatman; the anchor is amidships at the waterline."""
    sheet = Sheet(view, -0.12, -0.13, 0.12, 0.05)
    dark = colors.line * 0.85
    sheet.draw_all(
        # shadow, hull, roof, boatman's body, hat and pole
        ([(-0.10, 0.012), (0.10, 0.012), (0.07, 0.032), (-0.07, 0.032)], colors.mist * 0.4 + dark * 0.6, 0.5),
        ([(-0.105, -0.022), (-0.06, -0.008), (0.06, -0.008), (0.105, -0.022), (0.075, 0.017), (-0.075, 0.017)], dark),
        (
            [(-0.045, -0.008), (-0.042, -0.035), (-0.02, -0.047), (0.015, -0.047), (0.035, -0.035), (0.038, -0.008)],
            dark * 0.8 + rgb("8a6a40") * 0.2,
        ),
        ([(0.056, -0.008), (0.060, -0.062), (0.076, -0.062), (0.084, -0.008)], dark),
        ([(0.048, -0.062), (0.068, -0.085), (0.088, -0.062)], dark),
        ([(0.09, -0.075), (0.115, 0.01)], dark, 1.0, 0.010),
    )
    return sheet.sprite()


def seal_sprite(view: View) -> Sprite:
    """Draw the red seal of the painter; the anchor is its center."""
    sheet = Sheet(view, -0.05, -0.05, 0.05, 0.05)
    red, paper = rgb("b3271e"), rgb("f0dcc8")
    sheet.draw_all(
        ([(-0.034, -0.036), (0.033, -0.034), (0.035, 0.035), (-0.035, 0.034)], red),
        ([(-0.018, -0.018), (-0.018, 0.018)], paper, 0.75, 0.010),
        ([(0.0, -0.02), (0.0, 0.02)], paper, 0.75, 0.010),
        ([(0.018, -0.018), (0.018, 0.018)], paper, 0.75, 0.010),
        ([(-0.018, 0.016), (0.018, 0.016)], paper, 0.75, 0.010),
    )
    return sheet.sprite()


def pavilion_sprite(view: View, colors: Palette) -> Sprite:
    """Draw an open pavilion with upturned eaves on a wooded knoll; the anchor is at the knoll's foot."""
    sheet = Sheet(view, -0.34, -0.30, 0.34, 0.06)
    x = np.linspace(-0.33, 0.33, 45)
    crest = -0.105 * np.exp(-((np.abs(x) / 0.17) ** 2.2)) - 0.008 * np.sin(31 * x + 1) * np.exp(-((x / 0.2) ** 2))
    earth = colors.slope * 0.45 + colors.line * 0.55
    hill = np.concatenate([np.stack([x, crest + 0.012], 1), [(0.33, 0.03), (-0.33, 0.03)]])
    sheet.draw(hill, earth)
    across, y = (coordinate / sheet.unit for coordinate in sheet.coordinates())
    # The knoll pales, and then vanishes, toward its foot and its ends.
    pale = np.clip(smoothstep(-0.09, 0.03, y) * 0.8 + smoothstep(0.10, 0.33, np.abs(across)), 0, 1)
    sheet.pixels[..., :3] += (colors.mist - earth) * (pale * 0.75 * sheet.pixels[..., 3])[..., None]
    ground = smoothstep(-0.075, 0.02, y) + smoothstep(0.12, 0.30, np.abs(across))
    sheet.pixels *= (1 - np.clip(ground, 0, 1))[..., None].astype(np.float32)
    dark = colors.line
    red = rgb("7a2a1c") * 0.7 + dark * 0.3
    roof = [
        (-0.105, -0.178), (-0.092, -0.164), (0.092, -0.164), (0.105, -0.178), (0.07, -0.186), (0.03, -0.212),
        (0.008, -0.248), (-0.008, -0.248), (-0.03, -0.212), (-0.07, -0.186),
    ]  # fmt: skip
    sheet.draw_all(
        # inside, four posts, floor, roof and finial
        ([(-0.062, -0.165), (0.062, -0.165), (0.062, -0.095), (-0.062, -0.095)], colors.mist),
        *(([(x, -0.165), (x, -0.095)], red, 1.0, 0.015) for x in (-0.058, -0.02, 0.02, 0.058)),
        ([(-0.075, -0.094), (0.075, -0.094)], dark, 1.0, 0.020),
        (roof, dark),
        ([(0, -0.265), (0, -0.24)], dark, 1.0, 0.014),
    )
    for bush, size in ((-0.13, 0.030), (-0.105, 0.024), (0.115, 0.028), (0.145, 0.020)):
        height = float(np.interp(bush, x, crest))
        sheet.draw(blob(bush, height - size * 0.5, size * 1.15, size), colors.foliage * 0.8 + dark * 0.2)
    return sheet.sprite()


def blob(x: float, y: float, across: float, down: float, waves: int = 5, phase: float = 0.0) -> np.ndarray:
    """Return the outline of a tuft, (points, 2): an ellipse with a scalloped edge."""
    turn = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    radius = 1 + 0.13 * np.sin(waves * turn + phase)
    return np.stack([x + across * radius * np.cos(turn), y + down * radius * np.sin(turn)], 1)


def pine_sprite(view: View, colors: Palette, rng: np.random.Generator, height: float, lean: float) -> Sprite:
    """Draw a pine: a winding trunk under flat clouds of needles, its top `lean` units to the right of its foot.

    The anchor is its foot.
    """
    sheet = Sheet(view, -0.30, -height - 0.05, 0.30, 0.03)
    rise = np.linspace(0, 1, 12)
    wind = 0.022 * np.sin(rise * 7 + rng.uniform(0, 6)) * rise
    trunk = np.stack([lean * rise**1.5 + wind, -height * rise], 1)
    bark = colors.line * 0.8 + colors.foliage * 0.2
    half = np.stack([0.020 * (1 - 0.62 * rise) * (height / 0.40) ** 0.5, 0 * rise], 1)
    sheet.draw(np.concatenate([trunk + half, (trunk - half)[::-1]]), bark)
    green, light = colors.foliage * 0.75 + colors.line * 0.25, colors.foliage * 0.75 + colors.mist * 0.25
    side = 1 if lean > 0 else -1
    for k, level in enumerate(np.linspace(0.48, 1.0, 5)):  # branches to both sides in turn, by their height
        x, y = (np.interp(level, rise, trunk[:, axis]) for axis in (0, 1))
        out = (side if k % 2 == 0 else -side) * (0.13 - 0.10 * (level - 0.48) / 0.52) * rng.uniform(0.8, 1.15)
        if level == 1:
            out = 0.01
        tip = (x + out, y - 0.012)
        sheet.draw([(x, y + 0.025), (x + out * 0.5, y), tip], bark, width=0.012)
        across = rng.uniform(0.075, 0.095) * (1.12 - 0.35 * level) * (height / 0.40) ** 0.5
        for dx, dy, share in ((-0.55, 0.004, 0.62), (0.55, 0.006, 0.60), (0.0, -0.012, 0.85)):
            tuft = blob(tip[0] + dx * across, tip[1] + dy, across * share, across * share * 0.42, 6, rng.uniform(0, 6))
            sheet.draw(tuft, green)
            if view.detail:
                needles(sheet, tuft, light, colors.line)
        cap = blob(tip[0], tip[1] - 0.020, across * 0.72, across * 0.20, 6, rng.uniform(0, 6))
        sheet.draw(cap, light, 0.55)
    return sheet.sprite()


def needles(sheet: Sheet, tuft: np.ndarray, light: np.ndarray, dark: np.ndarray) -> None:
    """Draw fans of needles in a tuft, for images that are large enough to show them."""
    middle = tuft.mean(0)
    for point in tuft[::2]:
        upper = point[1] < middle[1]
        start, end = middle + 0.35 * (point - middle), middle + (1.06 if upper else 0.95) * (point - middle)
        sheet.draw([start, end], light if upper else dark, 0.55, width=0.0035)


def bamboo_sprite(view: View, colors: Palette, rng: np.random.Generator, height: float, lean: float) -> Sprite:
    """Draw a culm of bamboo with hanging leaves, like `pine_sprite`."""
    sheet = Sheet(view, -0.26, -height - 0.10, 0.26, 0.03)
    stalk = colors.foliage * 0.65 + colors.line * 0.10 + colors.mist * 0.25
    joints = np.linspace(0, 1, 8)
    for low, high in zip(joints[:-1], joints[1:], strict=True):
        ends = [(lean * level**2, -height * level) for level in (low + 0.012, high - 0.012)]
        sheet.draw(ends, stalk, width=0.021 * (1 - 0.4 * low))
        sheet.draw(np.array(ends[1:] * 2) + [(-0.011, -0.004), (0.011, -0.004)], colors.line, width=0.008)
    pale, dark = colors.foliage * 0.7 + colors.mist * 0.3, colors.foliage * 0.6 + colors.line * 0.4
    for joint in joints[3:]:
        for tone in (pale, dark, dark):
            # Leaves hang in threes from a twig.
            side = rng.choice([-1, 1])
            root = np.array([lean * joint**2, -height * joint])
            twig = root + (side * rng.uniform(0.02, 0.10), rng.uniform(-0.05, 0.03))
            sheet.draw([root, twig], stalk, width=0.006)
            middle = np.pi / 2 - side * rng.uniform(0.1, 0.8)
            for angle in (middle - 0.62, middle, middle + 0.62):
                length = rng.uniform(0.075, 0.115)
                ahead = np.array([np.cos(angle), np.sin(angle)])
                across = np.array([-ahead[1], ahead[0]]) * 0.0105
                broad = twig + 0.38 * length * ahead
                sheet.draw([twig, broad + across, twig + length * ahead, broad - across], tone)
    return sheet.sprite()


def bank(x: np.ndarray | float, side: int) -> np.ndarray | float:
    """Return how far below its anchor, in units, the bank of the trees is at `x` units from it.

    It rises toward `side` (1: the right).
    """
    inland = side * x
    return -0.05 * np.tanh(inland / 0.10) + 0.30 * np.clip(-inland - 0.06, 0, None) ** 1.3


def rock_sprite(view: View, colors: Palette, rng: np.random.Generator, side: int) -> Sprite:
    """Draw the dark bank of the trees, in the right corner (`side` 1) or the left one; the anchor is on its crest."""
    sheet = Sheet(view, -0.75, -0.10, 0.75, 0.56)  # as far as a camera that moves away can see
    x = np.linspace(-0.75, 0.75, 91)
    crest = bank(x, side) + 0.007 * np.sin(29 * x + rng.uniform(0, 6)) + 0.004 * np.sin(61 * x + rng.uniform(0, 6))
    earth = colors.line * 0.75 + colors.slope * 0.25
    sheet.draw(np.concatenate([np.stack([x, crest], 1), [(0.75, 0.56), (-0.75, 0.56)]]), earth)
    across, y = (coordinate / sheet.unit for coordinate in sheet.coordinates())
    depth = (y - np.interp(across[0], x, crest)[None]).astype(np.float32)
    pale = smoothstep(0.0, 0.11, depth) * 0.70
    low = colors.slope * 0.5 + colors.mist * 0.5
    sheet.pixels[..., :3] += (low - earth) * (pale * sheet.pixels[..., 3])[..., None]
    sheet.pixels *= (1 - smoothstep(0.22, 0.46, -side * across + 0 * y))[..., None].astype(np.float32)
    return sheet.sprite()


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
