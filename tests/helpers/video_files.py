"""Write small video files with every awkward property, with PyAV."""

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from pipeline_landscape_video.video_writing import write_video


EXACT_CONVERSION = 0x4 | 0x40000 | 0x2000  # swscale's bicubic, exact rounding and full chroma
TICKS = 12800  # ticks per second: a multiple of the usual frame rates, which mp4 keeps unchanged


def moving_frames(num_frames: int, height: int = 48, width: int = 64, speed: int = 2) -> list[np.ndarray]:
    """Return frames of a smooth image that moves right by `speed` pixels per frame, (height, width, 3) uint8."""
    y, x = np.mgrid[:height, : width + speed * num_frames].astype(np.float64)
    red = 128 + 70 * np.sin(x / 5) * np.cos(y / 7)
    green = 128 + 60 * np.cos(x / 9 + y / 6)
    blue = 40 + 2.5 * y
    picture = np.stack([red, green, blue], axis=-1).clip(0, 255).astype(np.uint8)
    return [picture[:, speed * (num_frames - i) : speed * (num_frames - i) + width] for i in range(num_frames)]


def quadrants(height: int = 48, width: int = 64) -> np.ndarray:
    """Return an image of four colors, red, green / blue, white, which shows how it was rotated."""
    picture = np.full((height, width, 3), 235, dtype=np.uint8)
    picture[: height // 2, : width // 2] = (200, 30, 30)
    picture[: height // 2, width // 2 :] = (30, 160, 40)
    picture[height // 2 :, : width // 2] = (30, 40, 190)
    return picture


def make_video(
    path: str | Path,
    frames: Sequence[np.ndarray],
    timestamps: Sequence[Fraction | float] | None = None,
    fps: int = 10,
    pixel_aspect: Fraction | None = None,
    rotation: int | None = None,
    hflip: bool = False,
    audio: str | None = None,
    audio_seconds: float | None = None,
    tags: dict[str, str] | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Write `frames` as H.264, evenly spaced or at `timestamps` in seconds, with a tone in the codec `audio`."""
    timestamps = [Fraction(i, fps) for i in range(len(frames))] if timestamps is None else timestamps
    height, width, _ = frames[0].shape
    with av.open(str(path), "w", options=options or {}) as container:
        container.metadata.update(tags or {})
        video = container.add_stream("libx264", rate=fps, options={"crf": "8", "g": "6"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        if pixel_aspect is not None:
            video.codec_context.sample_aspect_ratio = pixel_aspect
        if rotation is not None or hflip:
            video.set_display_rotation(rotation or 0, hflip=hflip)
        video.codec_context.time_base = Fraction(1, TICKS)
        sound = None if audio is None else container.add_stream(audio, rate=48000, layout="mono")
        for pixels, timestamp in zip(frames, timestamps, strict=True):
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
                format="yuv420p", interpolation=EXACT_CONVERSION
            )
            picture.time_base, picture.pts = Fraction(1, TICKS), round(timestamp * TICKS)
            container.mux(video.encode(picture))
        container.mux(video.encode())
        if sound is not None:
            seconds = float(timestamps[-1]) + 1 / fps if audio_seconds is None else audio_seconds
            for start in range(0, int(seconds * 48000), 960):
                wave = 8000 * np.sin(2 * np.pi * 440 * np.arange(start, start + 960) / 48000)
                chunk = av.AudioFrame.from_ndarray(wave.astype(np.int16)[None], format="s16", layout="mono")
                chunk.sample_rate, chunk.pts, chunk.time_base = 48000, start, Fraction(1, 48000)
                container.mux(sound.encode(chunk))
            container.mux(sound.encode())
    return Path(path)


def half_of(path: Path, share: float = 0.5) -> Path:
    """Write a truncated copy of the file."""
    data = path.read_bytes()
    short = path.with_name(f"short_{path.name}")
    short.write_bytes(data[: int(len(data) * share)])
    return short


def broken_at_the_middle_frame(path: Path, cut: bool) -> bytes:
    """Return the bytes of an .mp4 that ends before its middle frame, or has random bytes instead of that frame."""
    with av.open(str(path)) as container:
        packets = sorted((packet.pos, packet.size) for packet in container.demux(video=0) if packet.size)
    position, size = packets[len(packets) // 2]
    data = path.read_bytes()
    return data[:position] if cut else data[:position] + b"\xff" * size + data[position + size :]


def gray_clip(num_frames: int, height: int = 48, width: int = 64, brightness: int = 8) -> np.ndarray:
    """Return a clip in which frame i has the gray level i * brightness in a central square, which tells its number."""
    frames = np.zeros((num_frames, height, width, 3), np.uint8)
    side = (width - height) // 2
    frames[:, :, side : side + height] = np.arange(num_frames)[:, None, None, None] * brightness
    return frames


def make_video_folder(directory: Path, lengths: Sequence[int]) -> Path:
    """Write gray clips with the given numbers of frames, at 8 frames per second, and a `metadata.jsonl`."""
    directory.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, length in enumerate(lengths):
        write_video(directory / f"{number}.mp4", gray_clip(length), fps=8)
        lines.append(json.dumps({"file_name": f"{number}.mp4", "text": f"clip {number}", "texts": [f"片{number}"]}))
    (directory / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return directory


def painted_pan(
    seed: int, num_frames: int, height: int = 96, width: int = 128, speed: int = 2, blot: float = 4
) -> np.ndarray:
    """Return a clip of ink blots that pass by, (num_frames, height, width, 3), another scene for each seed."""
    rng = np.random.default_rng(seed)
    picture = cv2.GaussianBlur(rng.random((height, width + speed * num_frames, 3)), (0, 0), blot)
    picture = (picture - picture.min()) / np.ptp(picture)  # stretch each scene to the full range
    tint = rng.uniform(0.5, 1, 3)
    picture = (255 * tint * (0.1 + 0.9 * picture)).astype(np.uint8)
    return np.stack([picture[:, speed * i : speed * i + width] for i in range(num_frames)])


def with_text(frames: np.ndarray, text: str, corner: tuple[int, int]) -> np.ndarray:
    """Return a copy with a white line of text, outlined in black, whose lower left corner is at (x, y)."""
    frames = frames.copy()
    for frame in frames:
        for color, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
            cv2.putText(frame, text, corner, cv2.FONT_HERSHEY_SIMPLEX, 0.4, color, thickness, cv2.LINE_AA)
    return frames


def with_bars(frames: np.ndarray, rows: int = 0, columns: int = 0) -> np.ndarray:
    """Return a copy with black rows at the top and bottom, or black columns left and right."""
    return np.pad(frames, ((0, 0), (rows, rows), (columns, columns), (0, 0)))
