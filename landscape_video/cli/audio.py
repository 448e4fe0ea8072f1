"""Encode sound that a container does not hold, with the same channels, level and times."""

from fractions import Fraction
from typing import NamedTuple

import av

from pipeline_landscape_video.frame_conversion import pulled


# Sampling rates and bits per sample and channel that AAC allows. The next higher rate is taken.
AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
AAC_BITS_PER_SAMPLE = 5.5  # of at most 6: with fewer, white noise loses more than 0.2 dB
# Without perceptual noise substitution and intensity stereo, which replace sound by noise of about its level.
AAC_OPTIONS = {"aac_pns": "0", "aac_is": "0"}
# AAC has no name for these layouts, and players would not know which channel is which.
RENAMED_LAYOUTS = {"quad(side)": "quad", "5.0(side)": "5.0", "5.1(side)": "5.1"}
UNNAMED_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 7: "7.0", 8: "7.1"}
# Seconds by which sound may be off its times before silence is inserted or samples are dropped. Times are stored in
# milliseconds in some containers, so smaller differences are rounding errors.
TOLERANCE = 0.008


class AudioFormat(NamedTuple):
    """Format that sound is encoded in: `codec`, an encoder of FFmpeg; `rate` in Hz; `layout` of the channels."""

    codec: str
    rate: int
    layout: str


def aac_format(stream: av.AudioStream) -> AudioFormat | None:
    """The AAC format that keeps a stream's channels, or stereo if AAC does not have them; None if it has no sound."""
    count, rate = stream.layout.nb_channels, stream.rate
    if not count or not rate:
        return None
    layout = relabeled(stream.layout)
    if not _encodes("aac", layout):
        layout = "stereo"
    return AudioFormat("aac", min((r for r in AAC_RATES if r >= rate), default=AAC_RATES[-1]), layout)


def relabeled(layout: av.AudioLayout) -> str:
    """Name of the layout under which channels are encoded, in their order."""
    if layout.name.endswith(" channels"):  # in no known order
        return UNNAMED_LAYOUTS.get(layout.nb_channels, layout.name)
    return RENAMED_LAYOUTS.get(layout.name, layout.name)


def _encodes(codec: str, layout: str) -> bool:
    context = av.CodecContext.create(codec, "w")
    try:
        context.layout, context.sample_rate, context.format = layout, 48000, "fltp"
        context.open()
    except (ValueError, av.FFmpegError):
        return False
    return True


class AudioEncoder:
    """Decodes packets of a stream and encodes them again. Gaps become silence, and damaged packets leave a gap.

    Args:
        stream: Stream whose packets are decoded.
        target: Container that gains a stream.
        audio: Format to encode.

    Attributes:
        stream: The new stream.
    """

    def __init__(self, stream: av.AudioStream, target: av.container.OutputContainer, audio: AudioFormat):
        self._source, self._decoder, self._audio = stream, stream.codec_context, audio
        options = {**AAC_OPTIONS, "cutoff": str(audio.rate // 2)}
        self.stream = target.add_stream(audio.codec, rate=audio.rate, layout=audio.layout, options=options)
        self.stream.bit_rate = int(AAC_BITS_PER_SAMPLE * audio.rate) * self.stream.layout.nb_channels
        self._num_damaged = 0
        self._graph: av.filter.Graph | None = None  # for frames of `_source_format`
        self._source_format: tuple | None = None
        self._filling = _filling_graph(audio)
        self._time_base: Fraction | None = None
        self._end = 0  # of the frame decoded last, in this time base

    def describe(self) -> str:
        """Name of the codec, and what else differs from the source."""
        name = "AAC"
        if self._audio.rate != self._source.rate:
            name += f" of {self._audio.rate} Hz"
        if self.stream.layout.nb_channels != self._source.layout.nb_channels:
            name += f" in {self._audio.layout}"
        return name

    def describe_damage(self) -> str | None:
        """What of the sound is missing, in a few words."""
        if self._graph is None:
            return "cannot be decoded and is left out"
        return f"has {self._num_damaged} damaged packets, which are silent" if self._num_damaged else None

    def encode(self, packet: av.Packet | None) -> list[av.Packet]:
        """Return the packets that are finished, after the last packet (None) all that are left."""
        try:
            frames = self._decoder.decode(packet)
        except av.FFmpegError:
            self._num_damaged += 1
            return []
        packets = []
        for frame in frames:
            self._time_base = frame.time_base or self._time_base
            if frame.pts is None:  # only the first frame of a packet has a time in some formats
                frame.pts, frame.time_base = self._end, self._time_base
            self._end = frame.pts + round(frame.samples / frame.sample_rate / self._time_base)
            packets += self._resample(frame)
        if packet is None:
            packets += self._flush()
            self._filling.push(None)
            packets += [*self._encode_filled(), *self.stream.encode()]
        return packets

    def _resample(self, frame: av.AudioFrame) -> list[av.Packet]:
        packets = []
        source_format = (frame.format.name, frame.layout.name, frame.sample_rate)
        if source_format != self._source_format:
            packets += self._flush()
            self._source_format, self._graph = source_format, self._build(frame)
        self._graph.push(frame)
        return packets + self._finished()

    def _build(self, frame: av.AudioFrame) -> av.filter.Graph:
        """Return the graph that converts frames like this one to the rate and the layout of the encoder."""
        graph = av.filter.Graph()
        source = graph.add_abuffer(
            sample_rate=frame.sample_rate, format=frame.format, layout=frame.layout, time_base=self._time_base
        )
        rate, layout = self._audio.rate, self._audio.layout
        filters = [
            graph.add("aformat", f"sample_fmts=fltp:sample_rates={rate}:channel_layouts={layout}"),
            graph.add("asettb", f"1/{rate}"),
            graph.add("abuffersink"),
        ]
        if frame.layout.name != layout == relabeled(frame.layout):  # else the channels would be mixed
            channels = "|".join(map(str, range(frame.layout.nb_channels)))
            filters.insert(0, graph.add("channelmap", f"map={channels}:channel_layout={layout}"))
        graph.link_nodes(source, *filters).configure()
        return graph

    def _finished(self) -> list[av.Packet]:
        packets = []
        for frame in pulled(self._graph):
            self._filling.push(frame)
            packets += self._encode_filled()
        return packets

    def _encode_filled(self) -> list[av.Packet]:
        return [packet for frame in pulled(self._filling) for packet in self.stream.encode(frame)]

    def _flush(self) -> list[av.Packet]:
        if self._graph is None:
            return []
        self._graph.push(None)
        return self._finished()


def _filling_graph(audio: AudioFormat) -> av.filter.Graph:
    """A graph that inserts silence or drops samples where the times of frames leave a gap or overlap."""
    graph = av.filter.Graph()
    source = graph.add_abuffer(
        sample_rate=audio.rate, format="fltp", layout=audio.layout, time_base=Fraction(1, audio.rate)
    )
    filling = graph.add("aresample", f"async=1:min_hard_comp={TOLERANCE}")
    graph.link_nodes(source, filling, graph.add("abuffersink")).configure()
    return graph
