"""Things in the landscape drawn as sprites: sun, moon, boat, pavilion, pines, bamboo, seal."""

import cv2
import numpy as np

from shanshui.renderer.brushwork import Sprite, View, premultiplied, smoothstep, soften
from shanshui.renderer.palettes import Palette, rgb
from shanshui.renderer.scene import Scene


class Sheet:
    """An empty sheet to draw a sprite on, in units: x to the right and y down from the anchor."""

    def __init__(self, view: View, left: float, top: float, right: float, bottom: float) -> None:
        self.view = view
        self.scale = view.oversample
        self.pixels = view.unit * self.scale
        self.anchor = np.array([-left, -top]) * self.pixels + 2
        size = np.ceil(np.array([right - left, bottom - top]) * self.pixels).astype(int) + 4
        self.paint = np.zeros((size[1], size[0], 4), np.float32)

    def fill(self, points, colour: np.ndarray, opacity: float = 1.0) -> None:
        """Fill a polygon of (x, y) points."""
        self.blend(points, colour, opacity, None)

    def stroke(self, points, width: float, colour: np.ndarray, opacity: float = 1.0) -> None:
        """Draw a line through (x, y) points, `width` units wide."""
        self.blend(points, colour, opacity, width)

    def blend(self, points, colour: np.ndarray, opacity: float, width: float | None) -> None:
        finer = 3
        points = np.asarray(points, float) * self.pixels + self.anchor
        edge = 2 + (width or 0) * self.pixels / 2
        left, top = np.maximum(np.floor(points.min(0) - edge).astype(int), 0)
        right, bottom = np.minimum(np.ceil(points.max(0) + edge).astype(int), self.paint.shape[1::-1])
        mask = np.zeros(((bottom - top) * finer, (right - left) * finer), np.uint8)
        fixed = np.round(((points - (left, top)) * finer - 0.5) * 16).astype(np.int32)
        if width is None:
            cv2.fillPoly(mask, [fixed], 255, cv2.LINE_8, 4)
        else:
            thickness = max(round(width * self.pixels * finer), 1)
            cv2.polylines(mask, [fixed], False, 255, thickness, cv2.LINE_8, 4)
        mask = cv2.resize(mask, (int(right - left), int(bottom - top)), interpolation=cv2.INTER_AREA)
        self.lay(colour, mask.astype(np.float32) * np.float32(opacity / 255), slice(top, bottom), slice(left, right))

    def lay(
        self, colour: np.ndarray, alpha: np.ndarray, rows: slice = slice(None), columns: slice = slice(None)
    ) -> None:
        """Lay a colour over (a part of) the sheet with opacity `alpha` (h, w)."""
        below = cv2.multiply(self.paint[rows, columns], cv2.merge([1 - alpha] * 4))
        self.paint[rows, columns] = cv2.add(below, premultiplied(colour, alpha))

    def radius(self) -> np.ndarray:
        """(h, w) distance from the anchor, in units."""
        y, x = np.mgrid[: self.paint.shape[0], : self.paint.shape[1]] + 0.5
        return np.hypot(x - self.anchor[0], y - self.anchor[1]).astype(np.float32) / self.pixels

    def sprite(self) -> Sprite:
        return Sprite(soften(self.paint, self.view), tuple(self.anchor), self.scale)


def light_sprite(view: View, scene: Scene, colours: Palette) -> Sprite:
    """Red sun in a glow, or a pale moon that a dark wash around it sets off."""
    sheet = Sheet(view, -0.22, -0.22, 0.22, 0.22)
    radius = sheet.radius()
    disc = np.clip((0.062 - radius) * sheet.pixels + 0.5, 0, 1)
    if scene.light == "sun":
        sheet.lay(rgb("f0603a"), 0.45 * np.exp(-((radius / 0.095) ** 2)))
        sheet.lay(rgb("d2301c"), disc)
    else:
        shade = colours.sky * 0.62 + colours.line * 0.2
        sheet.lay(shade, 0.62 * np.exp(-((radius / 0.105) ** 2)))
        sheet.lay(rgb("fffbe9"), disc)
    return sheet.sprite()


def boat_sprite(view: View, colours: Palette) -> Sprite:
    """A sampan with a matted roof and a standing boatman; anchor amidships at the waterline."""
    sheet = Sheet(view, -0.12, -0.13, 0.12, 0.05)
    dark = colours.line * 0.85
    sheet.fill([(-0.10, 0.012), (0.10, 0.012), (0.07, 0.032), (-0.07, 0.032)], colours.mist * 0.4 + dark * 0.6, 0.5)
    hull = [(-0.105, -0.022), (-0.06, -0.008), (0.06, -0.008), (0.105, -0.022), (0.075, 0.017), (-0.075, 0.017)]
    sheet.fill(hull, dark)
    roof = [(-0.045, -0.008), (-0.042, -0.035), (-0.02, -0.047), (0.015, -0.047), (0.035, -0.035), (0.038, -0.008)]
    sheet.fill(roof, dark * 0.8 + rgb("8a6a40") * 0.2)
    sheet.fill([(0.056, -0.008), (0.060, -0.062), (0.076, -0.062), (0.084, -0.008)], dark)
    sheet.fill([(0.048, -0.062), (0.068, -0.085), (0.088, -0.062)], dark)
    sheet.stroke([(0.09, -0.075), (0.115, 0.01)], 0.010, dark)
    return sheet.sprite()


def seal_sprite(view: View) -> Sprite:
    """The painter's red seal; anchor in its middle."""
    sheet = Sheet(view, -0.05, -0.05, 0.05, 0.05)
    red, paper = rgb("b3271e"), rgb("f0dcc8")
    sheet.fill([(-0.034, -0.036), (0.033, -0.034), (0.035, 0.035), (-0.035, 0.034)], red)
    for points in (
        [(-0.018, -0.018), (-0.018, 0.018)],
        [(0.0, -0.02), (0.0, 0.02)],
        [(0.018, -0.018), (0.018, 0.018)],
        [(-0.018, 0.016), (0.018, 0.016)],
    ):
        sheet.stroke(points, 0.010, paper, 0.75)
    return sheet.sprite()


def pavilion_sprite(view: View, colours: Palette) -> Sprite:
    """An open pavilion with upturned eaves on a wooded knoll; anchor at the knoll's foot."""
    sheet = Sheet(view, -0.34, -0.30, 0.34, 0.06)
    x = np.linspace(-0.33, 0.33, 45)
    crest = -0.105 * np.exp(-((np.abs(x) / 0.17) ** 2.2)) - 0.008 * np.sin(31 * x + 1) * np.exp(-((x / 0.2) ** 2))
    earth = colours.slope * 0.45 + colours.line * 0.55
    hill = np.concatenate([np.stack([x, crest + 0.012], 1), [(0.33, 0.03), (-0.33, 0.03)]])
    sheet.fill(hill, earth)
    y = (np.arange(sheet.paint.shape[0], dtype=np.float32)[:, None] + 0.5 - sheet.anchor[1]) / sheet.pixels
    away = (np.arange(sheet.paint.shape[1], dtype=np.float32)[None] + 0.5 - sheet.anchor[0]) / sheet.pixels
    # The knoll pales towards its foot and its ends.
    pale = np.clip(smoothstep(-0.09, 0.03, y) * 0.8 + smoothstep(0.10, 0.33, np.abs(away)), 0, 1)
    sheet.paint[..., :3] += (colours.mist - earth) * (pale * 0.75 * sheet.paint[..., 3])[..., None]
    ground = smoothstep(-0.075, 0.02, y) + smoothstep(0.12, 0.30, np.abs(away))
    sheet.paint *= (1 - np.clip(ground, 0, 1))[..., None].astype(np.float32)
    dark = colours.line
    sheet.fill([(-0.062, -0.165), (0.062, -0.165), (0.062, -0.095), (-0.062, -0.095)], colours.mist)
    for foot in (-0.058, -0.02, 0.02, 0.058):
        sheet.stroke([(foot, -0.165), (foot, -0.095)], 0.015, rgb("7a2a1c") * 0.7 + dark * 0.3)
    sheet.stroke([(-0.075, -0.094), (0.075, -0.094)], 0.020, dark)
    roof = [
        (-0.105, -0.178), (-0.092, -0.164), (0.092, -0.164), (0.105, -0.178), (0.07, -0.186), (0.03, -0.212),
        (0.008, -0.248), (-0.008, -0.248), (-0.03, -0.212), (-0.07, -0.186),
    ]  # fmt: skip
    sheet.fill(roof, dark)
    sheet.stroke([(0, -0.265), (0, -0.24)], 0.014, dark)
    for bush, size in ((-0.13, 0.030), (-0.105, 0.024), (0.115, 0.028), (0.145, 0.020)):
        height = float(np.interp(bush, x, crest))
        sheet.fill(blob(bush, height - size * 0.5, size * 1.15, size), colours.foliage * 0.8 + dark * 0.2)
    return sheet.sprite()


def blob(x: float, y: float, across: float, down: float, waves: int = 5, phase: float = 0.0) -> np.ndarray:
    """(points, 2) outline of a tuft: an ellipse with a scalloped edge."""
    turn = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    radius = 1 + 0.13 * np.sin(waves * turn + phase)
    return np.stack([x + across * radius * np.cos(turn), y + down * radius * np.sin(turn)], 1)


def pine_sprite(view: View, colours: Palette, rng: np.random.Generator, height: float, lean: float) -> Sprite:
    """A pine: a winding trunk under flat clouds of needles; anchor at its foot, `lean` to the right at its top."""
    sheet = Sheet(view, -0.30, -height - 0.05, 0.30, 0.03)
    rise = np.linspace(0, 1, 12)
    wind = 0.022 * np.sin(rise * 7 + rng.uniform(0, 6)) * rise
    trunk = np.stack([lean * rise**1.5 + wind, -height * rise], 1)
    bark = colours.line * 0.8 + colours.foliage * 0.2
    half = np.stack([0.020 * (1 - 0.62 * rise) * (height / 0.40) ** 0.5, 0 * rise], 1)
    sheet.fill(np.concatenate([trunk + half, (trunk - half)[::-1]]), bark)
    green, light = colours.foliage * 0.75 + colours.line * 0.25, colours.foliage * 0.75 + colours.mist * 0.25
    side = 1 if lean > 0 else -1
    levels = np.linspace(0.48, 1.0, 5)
    for k, level in enumerate(levels):
        x, y = (np.interp(level, rise, trunk[:, axis]) for axis in (0, 1))
        out = (side if k % 2 == 0 else -side) * (0.13 - 0.10 * (level - 0.48) / 0.52) * rng.uniform(0.8, 1.15)
        if k == len(levels) - 1:
            out = 0.01
        tip = (x + out, y - 0.012)
        sheet.stroke([(x, y + 0.025), (x + out * 0.5, y), tip], 0.012, bark)
        across = rng.uniform(0.075, 0.095) * (1.12 - 0.35 * level) * (height / 0.40) ** 0.5
        for dx, dy, share in ((-0.55, 0.004, 0.62), (0.55, 0.006, 0.60), (0.0, -0.012, 0.85)):
            tuft = blob(tip[0] + dx * across, tip[1] + dy, across * share, across * share * 0.42, 6, rng.uniform(0, 6))
            sheet.fill(tuft, green)
            if view.detail:
                needles(sheet, tuft, light, colours.line)
        cap = blob(tip[0], tip[1] - 0.020, across * 0.72, across * 0.20, 6, rng.uniform(0, 6))
        sheet.fill(cap, light, 0.55)
    return sheet.sprite()


def needles(sheet: Sheet, tuft: np.ndarray, light: np.ndarray, dark: np.ndarray) -> None:
    """Fans of needles in a tuft, for pictures large enough to show them."""
    middle = tuft.mean(0)
    for point in tuft[::2]:
        upper = point[1] < middle[1]
        start, end = middle + 0.35 * (point - middle), middle + (1.06 if upper else 0.95) * (point - middle)
        sheet.stroke([start, end], 0.0035, light if upper else dark, 0.55)


def bamboo_sprite(view: View, colours: Palette, rng: np.random.Generator, height: float, lean: float) -> Sprite:
    """A culm of bamboo with hanging leaves; anchor at its foot, `lean` to the right at its top."""
    sheet = Sheet(view, -0.26, -height - 0.10, 0.26, 0.03)
    stalk = colours.foliage * 0.65 + colours.line * 0.10 + colours.mist * 0.25
    joints = np.linspace(0, 1, 8)
    for low, high in zip(joints[:-1], joints[1:], strict=True):
        ends = [(lean * level**2, -height * level) for level in (low + 0.012, high - 0.012)]
        sheet.stroke(ends, 0.021 * (1 - 0.4 * low), stalk)
        sheet.stroke(np.array(ends[1:] * 2) + [(-0.011, -0.004), (0.011, -0.004)], 0.008, colours.line)
    pale, dark = colours.foliage * 0.7 + colours.mist * 0.3, colours.foliage * 0.6 + colours.line * 0.4
    for joint in joints[3:]:
        for tone in (pale, dark, dark):
            # Leaves hang in threes from a twig.
            side = rng.choice([-1, 1])
            root = np.array([lean * joint**2, -height * joint])
            twig = root + (side * rng.uniform(0.02, 0.10), rng.uniform(-0.05, 0.03))
            sheet.stroke([root, twig], 0.006, stalk)
            middle = np.pi / 2 - side * rng.uniform(0.1, 0.8)
            for angle in (middle - 0.62, middle, middle + 0.62):
                length = rng.uniform(0.075, 0.115)
                ahead = np.array([np.cos(angle), np.sin(angle)])
                across = np.array([-ahead[1], ahead[0]]) * 0.0105
                broad = twig + 0.38 * length * ahead
                sheet.fill([twig, broad + across, twig + length * ahead, broad - across], tone)
    return sheet.sprite()


def bank(x: np.ndarray | float, side: int) -> np.ndarray | float:
    """How far the bank that trees stand on has fallen at `x` units from its anchor; it rises to its `side`."""
    inland = side * x
    return -0.05 * np.tanh(inland / 0.10) + 0.30 * np.clip(-inland - 0.06, 0, None) ** 1.3


def rock_sprite(view: View, colours: Palette, rng: np.random.Generator, side: int) -> Sprite:
    """The dark bank in a lower corner that trees stand on; anchor on its crest, `side` 1 in the right corner."""
    sheet = Sheet(view, -0.75, -0.10, 0.75, 0.56)  # as far as a camera sees that draws away
    x = np.linspace(-0.75, 0.75, 91)
    crest = bank(x, side) + 0.007 * np.sin(29 * x + rng.uniform(0, 6)) + 0.004 * np.sin(61 * x + rng.uniform(0, 6))
    earth = colours.line * 0.75 + colours.slope * 0.25
    sheet.fill(np.concatenate([np.stack([x, crest], 1), [(0.75, 0.56), (-0.75, 0.56)]]), earth)
    y = (np.arange(sheet.paint.shape[0], dtype=np.float32)[:, None] + 0.5 - sheet.anchor[1]) / sheet.pixels
    across = (np.arange(sheet.paint.shape[1], dtype=np.float32)[None] + 0.5 - sheet.anchor[0]) / sheet.pixels
    depth = (y - np.interp(across[0], x, crest)[None]).astype(np.float32)
    pale = smoothstep(0.0, 0.11, depth) * 0.70
    low = colours.slope * 0.5 + colours.mist * 0.5
    sheet.paint[..., :3] += (low - earth) * (pale * sheet.paint[..., 3])[..., None]
    sheet.paint *= (1 - smoothstep(0.22, 0.46, -side * across + 0 * y))[..., None].astype(np.float32)
    return sheet.sprite()
