"""Clips with sound of every kind, made with PyAV, and the sound of any file as samples on its clock."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from media_files import RATE, moving_texture


SECONDS = 2
LEAD = 1  # seconds before time 0 in `sound_of`, for sound that begins earlier
VIDEO_CODECS = {".webm": "libvpx", ".avi": "mpeg4", ".asf": "wmv2", ".mpg": "mpeg2video"}


def bursts(num_channels: int, rate: int, seconds: float = SECONDS, lfe: int | None = None) -> np.ndarray:
    """Bursts of rising tones, each channel with its own level and pitch, float32 (num_channels, rate * seconds)."""
    t = np.arange(round(rate * seconds)) / rate
    envelope = 0.2 + (np.mod(t, 0.37) > 0.2)
    sounds = []
    for channel in range(num_channels):
        low, rise = (30, 20) if channel == lfe else (200 + 100 * channel, 250)
        sounds.append((0.2 + 0.08 * channel) * 0.6 * envelope * np.sin(2 * np.pi * (low + rise * t) * t))
    return np.stack(sounds).astype(np.float32)


@dataclass
class Sound:
    """One track of `make_clip`: the encoder, the rate in Hz, the layout and what else the track declares.

    `start` is in seconds. `gap` are two times between which there are no packets.
    """

    codec: str
    rate: int = 48000
    layout: str = "stereo"
    start: float = 0
    seconds: float = SECONDS
    gap: tuple[float, float] = (0, 0)
    tags: dict[str, str] = field(default_factory=dict)
    disposition: int = 0

    def samples(self) -> np.ndarray:
        channels = av.AudioLayout(self.layout).channels
        lfe = next((index for index, channel in enumerate(channels) if channel.name == "LFE"), None)
        return bursts(len(channels), self.rate, self.seconds, lfe)

    def frames(self) -> list[av.AudioFrame]:
        """Frames of 20 ms, except those in the gap."""
        samples, size = self.samples(), self.rate // 50
        frames = []
        for first in range(0, samples.shape[1], size):
            if self.gap[0] <= first / self.rate < self.gap[1]:
                continue
            part = samples[:, first : first + size]
            # Packed samples: PyAV 18 cannot fill planes of 8 channels.
            frame = av.AudioFrame.from_ndarray(part.T.reshape(1, -1).copy(), "flt", self.layout)
            frame.sample_rate, frame.time_base = self.rate, Fraction(1, self.rate)
            frame.pts = first + round(self.start * self.rate)
            frames.append(frame)
        return frames


def make_clip(
    path: Path,
    sounds: Sequence[Sound] = (),
    start: float = 0,
    seconds: float = SECONDS,
    prepare: Callable[[av.container.OutputContainer], None] | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Write a clip of 64 x 48 pixels whose frames are `moving_texture`, with tracks of sound.

    Args:
        path: Output; its suffix is the container.
        sounds: Tracks of sound.
        start: Time of the first frame in seconds.
        seconds: Duration of the video.
        prepare: Called with the container before anything is written.
        options: Options of the container.
    """
    frames = moving_texture(round(seconds * RATE), 48, 64)
    codec = VIDEO_CODECS.get(path.suffix, "libx264")
    with av.open(str(path), "w", options=options or {}) as container:
        video = container.add_stream(codec, rate=RATE, options={"preset": "ultrafast"} if codec == "libx264" else {})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        streams = []
        for sound in sounds:
            stream = container.add_stream(sound.codec, rate=sound.rate, layout=sound.layout)
            if not sound.codec.startswith(("pcm", "flac", "alac", "wavpack", "tta", "adpcm")):
                stream.bit_rate = 96_000 * stream.layout.nb_channels
            stream.metadata.update(sound.tags)
            stream.disposition = sound.disposition
            streams.append(stream)
        if prepare is not None:
            prepare(container)
        packets = []
        for number, pixels in enumerate(frames):
            image = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
            image.pts, image.time_base = number + round(start * RATE), Fraction(1, RATE)
            packets += video.encode(image)
        packets += video.encode()
        for sound, stream in zip(sounds, streams, strict=True):
            packets += [packet for frame in [*sound.frames(), None] for packet in stream.encode(frame)]
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return path


def sound_of(path: Path, track: int = 0) -> tuple[np.ndarray, int]:
    """Sound of a file: (channels, samples) on the clock of its video from `LEAD` seconds before 0, and its rate."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[track]
        counts_from_start = container.format.name in ("mpegts", "mpeg")
        offset = container.start_time / av.time_base if counts_from_start else 0
        placed, end = [], None
        for frame in container.decode(stream):
            time = end if frame.pts is None else float(frame.pts * frame.time_base) - offset
            if end is not None and abs(time - end) < 0.004:  # times are rounded to milliseconds in some containers
                time = end
            end = time + frame.samples / frame.sample_rate
            packed = av.AudioResampler("flt", frame.layout, frame.sample_rate).resample(frame)
            samples = np.concatenate([part.to_ndarray().reshape(-1, frame.layout.nb_channels) for part in packed])
            placed.append((round((time + LEAD) * frame.sample_rate), samples.T))
        rate = stream.rate
    length = max(first + samples.shape[1] for first, samples in placed)
    sound = np.zeros((len(placed[0][1]), length), np.float32)
    for first, samples in placed:
        sound[:, first : first + samples.shape[1]] = samples
    return sound, rate


def delays_and_levels(before: np.ndarray, after: np.ndarray, rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Delay in seconds, by cross-correlation, and change of level in dB, for each channel."""
    length = 1 << (before.shape[1] + after.shape[1]).bit_length()
    spectra = np.conj(np.fft.rfft(before, length)) * np.fft.rfft(after, length)
    delays = np.fft.irfft(spectra, length).argmax(axis=1)
    delays = np.where(delays > length // 2, delays - length, delays) / rate
    powers = [np.square(sound, dtype=np.float64).sum(axis=1) for sound in (before, after)]
    return delays, 10 * np.log10(powers[1] / powers[0])


def at_rate(sound: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """Sound at another rate, by its spectrum."""
    if rate == new_rate:
        return sound
    length = round(sound.shape[1] * new_rate / rate)
    spectrum = np.fft.rfft(sound)[:, : length // 2 + 1]
    return np.fft.irfft(np.pad(spectrum, ((0, 0), (0, length // 2 + 1 - spectrum.shape[1]))), length) * new_rate / rate
