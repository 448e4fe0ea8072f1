"""`landscape-video interpolate`: multiply the frame rate of any video by 2, 4 or 8."""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from landscape_video.cli.options import option_of, with_settings
from landscape_video.generation.models import pick_device
from landscape_video.generation.settings import InterpolationSettings, ModelSettings


if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

    from pipeline_landscape_video.video_io import Mp4Writer, VideoInfo


# Tags that a container writes for itself.
CONTAINER_TAGS = ("major_brand", "minor_version", "compatible_brands", "encoder", "duration")


@with_settings
def interpolate(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="Any video that FFmpeg reads.", show_default=False)],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT.mp4", help="The smoother video.", show_default=False)],
    times: Annotated[
        int,
        typer.Option(
            min=1, max=3, metavar="1|2|3", help="Doublings of the frame rate: 1 gives 2 times, 2 gives 4, 3 gives 8."
        ),
    ] = 1,
    keep_duplicates: Annotated[
        bool,
        typer.Option(
            "--keep-duplicates",
            help="Keep frames that repeat the one before, instead of moving between the distinct pictures.",
        ),
    ] = False,
    device: option_of(ModelSettings, "device") = "auto",
    *,
    settings: InterpolationSettings,
) -> None:
    """Double the frame rate of a video.

    Twice the frames:

        $ landscape-video interpolate river.mp4 smooth.mp4

    Eight times, for slow motion:

        $ landscape-video interpolate river.mov smooth.mp4 --times 3

    Timestamps, sound, text subtitles, chapters and tags are kept; sound that players do not expect in mp4 becomes AAC.
    Rotation and pixel aspect are applied. Frames are never blended across a cut. Where animation, a lower frame rate
    or pulldown repeats frames, motion runs between the distinct pictures. Memory use does not depend on the length of
    the video.
    """
    from tqdm import tqdm

    from landscape_video.cli.timeline import read_timeline
    from landscape_video.cli.tracks import TrackCopy
    from pipeline_landscape_video.video_io import iterate_video, read_metadata

    # 1. Check everything that can be wrong with the files
    info = check_files(source, output)

    # 2. Load the flow estimator
    target = pick_device(device)

    from landscape_video.generation.generate_clip import describe_environment, flow_estimator_name
    from pipeline_landscape_video import interpolate_stream, load_flow_estimator
    from pipeline_landscape_video.interpolation import doubled_times

    flow_estimator = load_flow_estimator(settings.flow, settings.flow_weights, device=target)
    described = {"source": source.name, "times": times, **settings.as_metadata()}
    described |= {"flow": flow_estimator_name(flow_estimator), **describe_environment(target)}

    # 3. Find cuts and repeated frames
    timeline = read_timeline(source, info.num_frames, keep_duplicates)
    described["repeated_frames"] = len(timeline.timestamps) - len(timeline.times)

    # 4. Read, interpolate and write, a few frames at a time
    after_cut = False  # of the frame read last

    def frames() -> Iterator[tuple["Tensor", float]]:
        nonlocal after_cut
        for number, frame in enumerate(iterate_video(source, as_stored=True)):
            if number in timeline.times:
                after_cut = number in timeline.scenes
                yield to_tensor(frame.pixels if frame.deep is None else frame.deep, target), timeline.times[number]

    multiple, output_times = 2**times, doubled_times(timeline.timestamps, times)
    metadata = {**read_metadata(source), "interpolation": described, "fps": float(info.fps * multiple)}
    with (
        closing(TrackCopy(source)) as tracks,
        open_output(output, info, multiple, metadata, tracks.has_cover) as writer,
    ):
        tracks.start(writer.container)
        parts = (frames(), flow_estimator, settings.sofp_mode)
        stream = interpolate_stream(*parts, is_cut=lambda *_: after_cut, output_times=output_times)
        bar = tqdm(stream, total=len(output_times), unit="frame", desc=output.name, file=sys.stderr)
        for frame, time in bar:
            tracks.advance(time)
            writer.write(frame, time, timeline.last_duration)  # others end with the next one
        tracks.advance()
    typer.echo(f"{output}: {bar.n} frames of {writer.width} x {writer.height}, {float(info.fps * multiple):.6g} fps")


def check_files(source: Path, output: Path) -> "VideoInfo":
    """Return what the input declares. Raises `ValueError` for a file that cannot be read or written."""
    from pipeline_landscape_video.video_io import check_output, probe_video

    check_output(output)
    if output.suffix.lower() != ".mp4":
        raise ValueError(f"{output}: the output must be an .mp4 file.")
    info = probe_video(source)
    if output.exists() and output.samefile(source):
        raise ValueError(f"{output}: is the input; give the output another name.")
    return info


def open_output(
    output: Path, info: "VideoInfo", multiple: int, metadata: dict[str, Any], has_cover: bool
) -> AbstractContextManager["Mp4Writer"]:
    """Open an .mp4 for a video of the same size, colors and tags, and `multiple` times its frame rate."""
    from pipeline_landscape_video.video_io import open_mp4

    return open_mp4(
        output,
        info.width,
        info.height,
        fps=info.fps * multiple,
        time_base=info.time_base / multiple,
        metadata=metadata,
        tags={name: value for name, value in info.tags.items() if name not in CONTAINER_TAGS},
        color_primaries=info.color_primaries,
        color_trc=info.color_trc,
        bit_depth=8 if info.bit_depth == 8 else 10,
        hdr=info.hdr,
        has_cover=has_cover,
    )


def to_tensor(pixels: "np.ndarray", device: "torch.device") -> "Tensor":
    """Convert (height, width, 3) uint8 or uint16 to (3, height, width) float32 in [0, 1]."""
    import torch

    white = 255 if pixels.itemsize == 1 else 65535
    return torch.from_numpy(pixels).to(device).movedim(-1, 0).float() / white
