"""A clip as it goes into an HTML page: a small video and a contact sheet, both as data in the page itself."""

import base64
import io
import tempfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from pipeline_landscape_video.video_io import VideoFrame, iterate_video, open_mp4


MAX_SECONDS = 8  # of a clip in a page; what is longer is cut, and the page says so
SHEET_COLUMNS = 6
CRF = 26  # of x264; at 128 x 128 about 10 KB a second, and ink washes still look like themselves


@dataclass(frozen=True)
class PageClip:
    """`video` and `sheet` are data URIs (H.264, WebP); sizes in pixels; `seconds` is how long it plays."""

    video: str
    sheet: str
    width: int
    height: int
    num_frames: int
    fps: float
    seconds: float
    is_cut: bool

    @property
    def size(self) -> int:
        """Bytes that it takes in the page."""
        return len(self.video) + len(self.sheet)


def embed_clip(path: Path, width: int) -> PageClip:
    """Read a clip and make it at most `width` pixels wide. Raises `VideoError` or `FileNotFoundError` by its name."""
    kept: list[VideoFrame] = []
    is_cut = False
    for frame in iterate_video(path):
        is_cut = bool(kept) and frame.timestamp - kept[0].timestamp >= MAX_SECONDS
        if is_cut:
            break
        kept.append(frame._replace(pixels=_shrink(frame.pixels, width)))
    seconds = float(kept[-1].timestamp + kept[-1].duration - kept[0].timestamp)
    fps = len(kept) / seconds
    frames = [frame.pixels for frame in kept]
    height, shown_width, _ = frames[0].shape
    return PageClip(
        video="data:video/mp4;base64," + _base64(_mp4(frames, fps)),
        sheet="data:image/webp;base64," + _base64(_contact_sheet(frames)),
        width=shown_width,
        height=height,
        num_frames=len(frames),
        fps=fps,
        seconds=seconds,
        is_cut=is_cut,
    )


def _shrink(pixels: np.ndarray, width: int) -> np.ndarray:
    if pixels.shape[1] <= width:
        return pixels
    return cv2.resize(pixels, (width, max(2, round(pixels.shape[0] * width / pixels.shape[1]))), cv2.INTER_AREA)


def _mp4(frames: list[np.ndarray], fps: float) -> bytes:
    height, width, _ = frames[0].shape
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        with open_mp4(path, width, height, fps, crf=CRF) as writer:
            for frame in frames:
                writer.write(frame)
        return path.read_bytes()


def _contact_sheet(frames: list[np.ndarray]) -> bytes:
    """Frames from the first to the last, in one row, two rows of three for the shape of a card."""
    chosen = np.linspace(0, len(frames) - 1, SHEET_COLUMNS).round().astype(int)
    small = [_shrink(frames[index], max(64, frames[index].shape[1] // 2)) for index in chosen]
    half = SHEET_COLUMNS // 2
    sheet = np.concatenate([np.concatenate(small[:half], axis=1), np.concatenate(small[half:], axis=1)])
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, "WEBP", quality=70, method=6)
    return buffer.getvalue()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
