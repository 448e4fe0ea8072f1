"""Copy the sound of one video file to another."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av

from pipeline_landscape_video.image_files import image_files
from pipeline_landscape_video.video_io import start_offset


class AudioCopy:
    """Copies the audio streams of a file into an open container, in step with its video.

    Packets are copied unchanged if the container supports their codec, else encoded as AAC. It must be made before the
    container's first packet is written.

    Args:
        path: Video whose audio is copied; it may have none.
        target: Container to write to.
    """

    def __init__(self, path: str | Path, target: av.container.OutputContainer):
        # A folder of images has no sound, and neither has its first file.
        self._source = av.open(str(path if Path(path).is_file() else image_files(path)[0]))
        self._target = target
        self._offset = start_offset(self._source)
        self._copies: dict[int, av.AudioStream] = {}
        self._encoders: dict[int, av.AudioStream] = {}
        for stream in self._source.streams.audio:
            if stream.codec_context.name in target.supported_codecs:
                self._copies[stream.index] = target.add_stream_from_template(stream)
            else:
                self._encoders[stream.index] = target.add_stream("aac", rate=stream.rate)
        self._packets = self._demux()
        self._held: av.Packet | None = None

    def close(self) -> None:
        """Close the file that was read."""
        self._source.close()

    def advance(self, seconds: float | Fraction | None = None) -> None:
        """Write everything up to a time of the video, or all that is left if it is `None`.

        The container holds back packets until every stream has reached their time, so streams must advance together.
        """
        while True:
            packet = self._held or next(self._packets, None)
            self._held = None
            if packet is None:
                break
            if seconds is not None and packet.dts * packet.time_base - self._offset > seconds:
                self._held = packet
                return
            self._write(packet)
        if seconds is None:
            for encoder in self._encoders.values():
                self._target.mux(encoder.encode())

    def _demux(self) -> Iterator[av.Packet]:
        """Packets of all audio streams, each stream with rising times."""
        streams = self._source.streams.audio
        last: dict[int, tuple[int, int]] = {}  # of each stream: time of its last packet, and where that ends
        shifts = dict.fromkeys((stream.index for stream in streams), 0)
        for packet in self._source.demux(*streams) if streams else ():
            if packet.dts is None:  # empty: it marks the end of a stream
                continue
            index = packet.stream.index
            if index in last and packet.dts + shifts[index] <= last[index][0]:
                # The clock has jumped back, as where files were joined. Continue as the video does.
                shifts[index] = last[index][1] - packet.dts
            packet.dts += shifts[index]
            packet.pts = packet.dts if packet.pts is None else packet.pts + shifts[index]
            last[index] = packet.dts, packet.dts + max(packet.duration or 0, 1)
            yield packet

    def _write(self, packet: av.Packet) -> None:
        index = packet.stream.index
        shift = round(self._offset / packet.time_base)
        if index in self._copies:
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            packet.stream = self._copies[index]
            self._target.mux(packet)
            return
        for frame in packet.decode():
            frame.pts -= shift
            self._target.mux(self._encoders[index].encode(frame))
