"""Convert high dynamic range and wide gamuts to BT.709, and keep the metadata of high dynamic range."""

from typing import NamedTuple

import av
import numpy as np
from av.sidedata.sidedata import Type as SideDataType


# Numbers of ITU-T H.273
PQ, HLG = 16, 18  # transfer functions
BT2020 = 9  # primaries
TRANSFER_NAMES = {PQ: "PQ", HLG: "HLG"}
# Red, green and blue as (x, y). BT.601 is missing because players ignore its small difference from BT.709.
WIDE_GAMUTS = {
    BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),  # DCI-P3
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),  # Display P3
}
BT709_PRIMARIES = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060))
D65 = (0.3127, 0.3290)
REFERENCE_WHITE = 203.0  # cd/m2 of white in a graded image, by ITU-R BT.2408
DISPLAY_GAMMA = 2.4  # of BT.709 displays, by ITU-R BT.1886
HLG_PEAK, HLG_GAMMA = 1000.0, 1.2  # cd/m2 of the reference display of ITU-R BT.2100, and its system gamma


class HdrMetadata(NamedTuple):
    """Metadata of high dynamic range as bytes of FFmpeg's side data, None where a file has none."""

    mastering_display: bytes | None
    content_light: bytes | None

    @classmethod
    def of(cls, image: av.VideoFrame) -> "HdrMetadata":
        """Read the metadata that a decoded frame carries."""
        kinds = (SideDataType.MASTERING_DISPLAY_METADATA, SideDataType.CONTENT_LIGHT_LEVEL)
        found = (image.side_data.get(kind) for kind in kinds)
        return cls(*(None if data is None else bytes(data) for data in found))

    @property
    def max_luminance(self) -> float:
        """Peak of the display that the video was graded on, in cd/m2; 1000, the usual one, if it is not declared."""
        values = self._mastering_values()
        return values[-1] if values is not None and values[-1] > REFERENCE_WHITE else 1000.0

    def as_x265_options(self) -> dict[str, str]:
        """Options of x265 that write this metadata."""
        options, values = {}, self._mastering_values()
        if values is not None:
            red, green, blue, white = (tuple(round(50_000 * v) for v in values[i : i + 2]) for i in (0, 2, 4, 6))
            darkest, brightest = (round(10_000 * value) for value in values[8:])
            points = "".join(f"{name}({x},{y})" for name, (x, y) in zip("GBR", (green, blue, red), strict=True))
            options["master-display"] = f"{points}WP({white[0]},{white[1]})L({brightest},{darkest})"
        if self.content_light is not None:
            brightest, average = np.frombuffer(self.content_light, np.uint32)[:2]
            options["max-cll"] = f"{brightest},{average}"
        return options

    def _mastering_values(self) -> list[float] | None:
        """The x and y of red, green, blue and white, then the least and the largest luminance in cd/m2."""
        if self.mastering_display is None:
            return None
        # AVMasteringDisplayMetadata: ten fractions, then whether the primaries and the luminances are known.
        numbers = np.frombuffer(self.mastering_display, np.int32)
        if not (numbers[20] and numbers[21]):
            return None
        return [float(top) / max(float(bottom), 1) for top, bottom in numbers[:20].reshape(10, 2)]


def to_bt709(pixels: np.ndarray, primaries: int, transfer: int, peak: float = 1000.0) -> np.ndarray:
    """Convert R'G'B' of another color volume to that of BT.709.

    Args:
        pixels: Values (..., 3), uint16.
        primaries, transfer: Color volume, numbers of ITU-T H.273. Other transfer functions than `PQ` and `HLG` are
            taken for that of a display of BT.709.
        peak: Largest luminance in cd/m2, of `PQ` only.

    Returns:
        Values (..., 3), uint16. Colors outside the gamut are clipped. Luminances above about half of `REFERENCE_WHITE`
        are compressed.
    """
    signal = np.arange(65536) / 65535
    if transfer == PQ:
        light = _compress(pq_luminance(signal).astype(np.float32)[pixels], peak)
    elif transfer == HLG:
        light = _compress(hlg_luminance(hlg_scene(signal).astype(np.float32)[pixels]), HLG_PEAK)
    else:
        light = (signal**DISPLAY_GAMMA).astype(np.float32)[pixels]
    if primaries in WIDE_GAMUTS:
        matrix = np.linalg.inv(_to_xyz(BT709_PRIMARIES)) @ _to_xyz(WIDE_GAMUTS[primaries])
        light = light @ matrix.T.astype(np.float32)
    return np.rint(65535 * light.clip(0, 1) ** np.float32(1 / DISPLAY_GAMMA)).astype(np.uint16)


_M1, _M2 = 2610 / 16384, 2523 / 32
_C1, _C2, _C3 = 3424 / 4096, 2413 / 128, 2392 / 128


def pq_luminance(encoded: np.ndarray) -> np.ndarray:
    """EOTF of ITU-R BT.2100, PQ: luminance in cd/m2, up to 10,000, of values in [0, 1]."""
    power = np.asarray(encoded, np.float64) ** (1 / _M2)
    return 10_000 * ((power - _C1).clip(0) / (_C2 - _C3 * power)) ** (1 / _M1)


def pq_encode(luminance: np.ndarray) -> np.ndarray:
    """Inverse of `pq_luminance`."""
    power = (np.asarray(luminance, np.float64) / 10_000) ** _M1
    return ((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2


def hlg_scene(encoded: np.ndarray) -> np.ndarray:
    """Inverse OETF of ITU-R BT.2100, HLG: light of the scene in [0, 1] of values in [0, 1]."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(encoded <= 0.5, encoded**2 / 3, (np.exp((encoded - c) / a) + b) / 12)


def hlg_luminance(scene: np.ndarray) -> np.ndarray:
    """OOTF of ITU-R BT.2100, HLG: luminance in cd/m2 on a display of `HLG_PEAK`, of light of the scene (..., 3)."""
    brightness = scene @ np.array([0.2627, 0.6780, 0.0593], scene.dtype)
    return HLG_PEAK * scene * brightness[..., None] ** (HLG_GAMMA - 1)


def _compress(luminance: np.ndarray, peak: float) -> np.ndarray:
    """Map luminances up to `peak` to [0, 1], where 1 is `REFERENCE_WHITE`, by the EETF of ITU-R BT.2390.

    The curve is applied to the brightest color, and the others keep their ratio to it, so that hues stay.
    """
    top = pq_encode(peak)
    white = pq_encode(REFERENCE_WHITE) / top
    knee = 1.5 * white - 0.5
    level = np.linspace(0, 1, 4096)
    t = (level - knee) / (1 - knee)
    curve = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * white
    before, after = pq_luminance(top * level), pq_luminance(top * np.where(level < knee, level, curve))
    gain = np.divide(after, before, out=np.ones_like(before), where=before > 0) / REFERENCE_WHITE
    return luminance * np.interp(luminance.max(axis=-1, keepdims=True), before, gain).astype(np.float32)


def _to_xyz(primaries: tuple[tuple[float, float], ...]) -> np.ndarray:
    """Matrix from linear RGB of these primaries to XYZ; white is D65."""
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in (*primaries, D65)]).T
    return columns[:, :3] * np.linalg.solve(columns[:, :3], columns[:, 3])
