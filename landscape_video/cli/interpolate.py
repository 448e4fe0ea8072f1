"""`landscape-video interpolate`: multiply the frame rate of any video by 2, 4 or 8."""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
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
# Tags that mp4 has names for, by FFmpeg's names. Beside a cover image, FFmpeg writes no others.
NAMED_TAGS = frozenset(
    "album album_artist artist comment composer copyright creation_time date description disc episode_id genre"
    " grouping keywords lyrics network show title track".split()
)
LARGE = 3 * 2_400_000  # values of a frame; larger frames are held in half precision


@with_settings
def interpolate(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT",
            help="Any video that FFmpeg reads, a folder of numbered images, or a folder of videos.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Argument(
            metavar="OUTPUT.mp4", help="The smoother video; a folder for a folder of videos.", show_default=False
        ),
    ],
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
    no_grain: Annotated[
        bool,
        typer.Option("--no-grain", help="Let film grain average out in new frames, instead of keeping its strength."),
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

    All videos of a folder; those that cannot be read are named:

        $ landscape-video interpolate raw smooth

    Timestamps, sound, text subtitles, chapters and tags are kept; sound that players do not expect in mp4 becomes AAC.
    Rotation and pixel aspect are applied. Frames are never blended across a cut. Where animation, a lower frame rate
    or pulldown repeats frames, motion runs between the distinct pictures. Film grain keeps its strength. Memory use
    does not depend on the length of the video.
    """
    # 1. Check everything that can be wrong with the files
    jobs = list_jobs(source, output)
    is_folder = jobs[0][0] != source
    if not is_folder:
        check_files(source, output)

    # 2. Load the flow estimator
    target = pick_device(device)

    from landscape_video.generation.generate_clip import describe_environment, flow_estimator_name
    from pipeline_landscape_video import load_flow_estimator

    flow_estimator = load_flow_estimator(settings.flow, settings.flow_weights, device=target)
    described = {"times": times, **settings.as_metadata(), "keep_grain": not no_grain}
    described |= {"flow": flow_estimator_name(flow_estimator), **describe_environment(target)}
    run = Interpolation(flow_estimator, settings.sofp_mode, times, keep_duplicates, not no_grain, target, described)

    # 3. Interpolate
    if not is_folder:
        run.write(source, output)
        return
    failed = 0
    for path, written in jobs:
        try:
            run.write(path, written)
        except Exception as error:  # no file may end the run over the others
            failed += 1
            text = str(error) if str(path) in str(error) else f"{path}: {type(error).__name__}: {error}"
            typer.echo(f"landscape-video: {text}", err=True)
    typer.echo(f"{output}: {len(jobs) - failed} of {len(jobs)} videos")
    if failed:
        raise typer.Exit(1)


@dataclass(frozen=True)
class Interpolation:
    """How videos are interpolated, whichever they are.

    Args:
        flow_estimator, sofp_mode, times, keep_grain: See `interpolate_stream`.
        keep_duplicates: Interpolate between all frames.
        device: Device that frames are interpolated on.
        described: Settings and versions, for the metadata of the video.
    """

    flow_estimator: Any
    sofp_mode: str
    times: int
    keep_duplicates: bool
    keep_grain: bool
    device: "torch.device"
    described: dict[str, Any]

    def write(self, source: Path, output: Path) -> None:
        """Interpolate one video. Raises `ValueError` for a file that cannot be read or written."""
        from tqdm import tqdm

        from landscape_video.cli.timeline import read_timeline
        from landscape_video.cli.tracks import TrackCopy
        from pipeline_landscape_video import interpolate_stream
        from pipeline_landscape_video.interpolation import doubled_times
        from pipeline_landscape_video.video_io import iterate_video, read_metadata

        # 1. Find cuts and repeated frames
        info = check_files(source, output)
        timeline = read_timeline(source, info.num_frames, self.keep_duplicates)
        repeated = len(timeline.timestamps) - len(timeline.times)
        described = {"source": source.name, **self.described, "repeated_frames": repeated}

        # 2. Read, interpolate and write, a few frames at a time
        after_cut = False  # of the frame read last

        def frames() -> Iterator[tuple["Tensor", float]]:
            nonlocal after_cut
            for number, frame in enumerate(iterate_video(source, as_stored=True)):
                if number in timeline.times:
                    after_cut = number in timeline.scenes
                    pixels = frame.pixels if frame.deep is None else frame.deep
                    yield to_tensor(pixels, self.device), timeline.times[number]

        output_times, fps = doubled_times(timeline.timestamps, self.times), info.fps * 2**self.times
        metadata = {**read_metadata(source), "interpolation": described, "fps": float(fps)}
        grainy = self.keep_grain and timeline.grainy
        with (
            closing(TrackCopy(source)) as tracks,
            open_output(output, info, 2**self.times, metadata, tracks.has_cover, grainy) as writer,
        ):
            warn_about_losses(source, info, tracks.has_cover)
            tracks.start(writer.container)
            stream = interpolate_stream(
                frames(),
                self.flow_estimator,
                self.sofp_mode,
                is_cut=lambda *_: after_cut,
                output_times=output_times,
                keep_grain=self.keep_grain,
            )
            bar = tqdm(stream, total=len(output_times), unit="frame", desc=output.name, file=sys.stderr)
            for frame, time in bar:
                tracks.advance(time)
                writer.write(frame, time, timeline.last_duration)  # others end with the next one
            tracks.advance()
        typer.echo(f"{output}: {bar.n} frames of {writer.width} x {writer.height}, {float(fps):.6g} fps")


def list_jobs(source: Path, output: Path) -> list[tuple[Path, Path]]:
    """Return pairs of input and output: one, or one for each video of a folder, whose output folder is created.

    Raises:
        ValueError: A folder without videos, or an output that is not a folder.
    """
    from pipeline_landscape_video.image_files import is_image_folder
    from pipeline_landscape_video.video_io import describe_others, is_clip

    if not source.is_dir() or is_image_folder(source):
        return [(source, output)]
    entries = sorted(path for path in source.iterdir() if not path.name.startswith("."))
    clips = [path for path in entries if is_clip(path)]
    if not clips:
        raise ValueError(f"{source}: contains neither videos nor numbered images of one kind.")
    if output.suffix or output.is_file() or (output.exists() and output.samefile(source)):
        raise ValueError(f"{output}: the output must be another folder, as the input is a folder of videos.")
    if left_out := describe_others(path for path in entries if not is_clip(path)):
        typer.echo(f"{source}: {left_out}", err=True)
    output.mkdir(parents=True, exist_ok=True)
    stems = Counter(path.stem for path in clips)
    return [(path, output / f"{path.stem if stems[path.stem] == 1 else path.name}.mp4") for path in clips]


def check_files(source: Path, output: Path) -> "VideoInfo":
    """Return what the input declares. Raises `ValueError` for a file that cannot be read or written."""
    from pipeline_landscape_video.video_io import check_output, probe_video

    if output.suffix.lower() != ".mp4":
        raise ValueError(f"{output}: the output must be an .mp4 file, got {output.suffix!r}; end its name with .mp4.")
    check_output(output)
    info = probe_video(source)
    if output.exists() and output.samefile(source):
        raise ValueError(f"{output}: is the input; give the output another name.")
    return info


def open_output(
    output: Path, info: "VideoInfo", multiple: int, metadata: dict[str, Any], has_cover: bool, grainy: bool
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
        tags={name: value for name, value in info.tags.items() if name.lower() not in CONTAINER_TAGS},
        color_primaries=info.color_primaries,
        color_trc=info.color_trc,
        bit_depth=8 if info.bit_depth == 8 else 10,
        hdr=info.hdr,
        has_cover=has_cover,
        grainy=grainy,
    )


def warn_about_losses(source: Path, info: "VideoInfo", has_cover: bool) -> None:
    """Say in a line what a video carries, beside its tracks, that its output does not."""
    losses = [f"{info.bit_depth} bits become 10"] if info.bit_depth > 10 else []
    losses += [f"{name} not kept" for name in info.lost]
    unnamed = sorted(name for name in info.tags if name.lower() not in (*CONTAINER_TAGS, *NAMED_TAGS))
    if has_cover and unnamed:
        losses.append(f"tags not kept beside a cover image: {', '.join(unnamed)}")
    if losses:
        typer.echo(f"{source.name}: {'; '.join(losses)}", err=True)


def to_tensor(pixels: "np.ndarray", device: "torch.device") -> "Tensor":
    """Convert (height, width, 3) uint8 or uint16 to (3, height, width) in [0, 1].

    Large uint8 frames become float16, which holds them exactly, others float32.
    """
    import torch

    tensor = torch.from_numpy(pixels).to(device).movedim(-1, 0)
    if pixels.itemsize == 1:
        return (tensor.half() if pixels.size > LARGE else tensor.float()) / 255
    return tensor.float() / 65535
