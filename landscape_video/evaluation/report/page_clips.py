"""Embed clips into an HTML page: a small video and a contact sheet, both as data URIs."""

import base64
import io
import tempfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from pipeline_landscape_video.video_io import VideoFrame, iterate_video, open_mp4


MAX_SECONDS = 8  # longer clips are cut, and the page says so
SHEET_FRAMES = 6
CRF = 26  # of x264: about 10 KB a second at 128 x 128, without visible damage to ink washes


@dataclass(frozen=True)
class PageClip:
    """An embedded clip.

    Args:
        video: Data URI of an H.264 video.
        sheet: Data URI of a WebP contact sheet.
        width, height: Size of the video in pixels.
        num_frames: Frames of the video.
        fps: Mean frame rate.
        seconds: Duration.
        is_cut: Whether only its beginning is shown.
    """

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
        """Number of bytes that it takes in the page."""
        return len(self.video) + len(self.sheet)


def embed_clip(path: Path, width: int) -> PageClip:
    """Read a clip and reduce it to at most `width` pixels. Raises `VideoError` or `FileNotFoundError`."""
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
        video=_data_uri("video/mp4", _mp4(frames, fps)),
        sheet=_data_uri("image/webp", _contact_sheet(frames)),
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
    """Six frames from first to last, in two rows of three, which have the shape of a card."""
    chosen = np.linspace(0, len(frames) - 1, SHEET_FRAMES).round().astype(int)
    small = [_shrink(frames[index], max(64, frames[index].shape[1] // 2)) for index in chosen]
    rows = [np.concatenate(row, axis=1) for row in (small[: SHEET_FRAMES // 2], small[SHEET_FRAMES // 2 :])]
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(rows)).save(buffer, "WEBP", quality=70, method=6)
    return buffer.getvalue()


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
