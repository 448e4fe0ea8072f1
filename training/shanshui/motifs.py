"""Single things in the landscape, drawn as sprites: sun and moon, boat, seal."""

import cv2
import numpy as np
from brushwork import Sprite, View, soften
from palettes import Palette, rgb
from scene import Scene


class Sheet:
    """An empty sheet to draw a sprite on, in units: x to the right and y down from the anchor."""

    def __init__(self, view: View, left: float, top: float, right: float, bottom: float, finer: float = 1.0) -> None:
        self.view = view
        self.scale = view.oversample * finer
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
        finer = 4
        points = (np.asarray(points, float) * self.pixels + self.anchor) * finer
        mask = np.zeros((self.paint.shape[0] * finer, self.paint.shape[1] * finer), np.uint8)
        fixed = np.round((points - 0.5) * 16).astype(np.int32)
        if width is None:
            cv2.fillPoly(mask, [fixed], 255, cv2.LINE_8, 4)
        else:
            thickness = max(round(width * self.pixels * finer), 1)
            cv2.polylines(mask, [fixed], False, 255, thickness, cv2.LINE_8, 4)
        mask = cv2.resize(mask, self.paint.shape[1::-1], interpolation=cv2.INTER_AREA)
        self.lay(colour, mask.astype(np.float32) * (opacity / 255))

    def lay(self, colour: np.ndarray, alpha: np.ndarray) -> None:
        """Lay a colour over the sheet with opacity `alpha` (h, w)."""
        self.paint *= 1 - alpha[..., None]
        self.paint[..., :3] += colour * alpha[..., None]
        self.paint[..., 3] += alpha

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
