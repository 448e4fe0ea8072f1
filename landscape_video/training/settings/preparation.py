"""Settings of `prepare_dataset.py`: how raw videos become training clips, and which stretches are rejected."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from landscape_video.files import hash_json
from landscape_video.training.settings.options import GroupedSettings, OptionGroup, option


MANIFEST, REJECTED = "metadata.jsonl", "refused.jsonl"  # tables of a prepared dataset
VERSION = 3  # of the processing; outcomes of other versions are computed again
CAPTION_PROMPT = "Describe this landscape painting in one sentence: what it shows and what moves."


@dataclass(kw_only=True)
class FolderSettings(OptionGroup):
    """Folders to read and write."""

    source_dir: Path = option(
        help="folder of raw videos, searched with its subfolders", flags=("source_dir",), metavar="RAW_VIDEOS"
    )
    output_dir: Path = option(
        help="folder to write: new, empty, or written by an earlier run", required=True, metavar="CLIPS"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        # Absolute, because workers may run elsewhere.
        source, output = self.source_dir, self.output_dir = self.source_dir.resolve(), self.output_dir.resolve()
        if not source.is_dir():
            raise ValueError(f"`source_dir` must be a folder, got {source}.")
        if output.is_relative_to(source) or source.is_relative_to(output):
            raise ValueError("`output_dir` and `source_dir` must not contain one another: clips would become sources.")
        is_empty = not output.exists() or (output.is_dir() and not any(output.iterdir()))
        if not is_empty and not all((output / name).is_file() for name in (MANIFEST, REJECTED)):
            raise ValueError(f"`output_dir` must be empty or written by an earlier run of this script, got {output}.")


@dataclass(kw_only=True)
class ClipSettings(OptionGroup):
    """How clips are cut from raw videos."""

    resolution: int = option(512, "shorter side of the clips in pixels; smaller videos are not enlarged", minimum=16)
    square: bool = option(False, "crop the center to a square")
    max_seconds: float = option(6.0, "longest clip; longer scenes become several clips")
    trim_frames: int = option(2, "frames dropped at both ends of a scene", minimum=0)
    cut_threshold: float = option(3.0, "smallest change at a cut, in multiples of the usual change", above=1)
    crop_bars: bool = option(False, "crop black bars instead of rejecting clips with them")


@dataclass(kw_only=True)
class FilterSettings(OptionGroup):
    """What is rejected. report.html gives the measured value of each rejection."""

    min_seconds: float = option(2.0, "too short: seconds without the trimmed frames", minimum=0)
    min_size: int = option(256, "too small: pixels of the shorter side, without black bars", minimum=16)
    # Measured at 64 pixels on the shorter side, where grain and compression average out.
    min_motion: float = option(0.8, "still: largest mean difference from the first frame, in levels of 255", minimum=0)
    min_brightness: float = option(
        48.0, "black: level that the brightest 5 % of pixels reach in half of the frames", minimum=0
    )
    max_bars: float = option(0.02, "letterboxed: share of the height or width in black bars", minimum=0)
    # In rendered clips, captions, logos and clocks reach 0.8 and more; a painter's seal that the camera does not move
    # reaches 0.3. Where nothing moves, they cannot be told from a painting's own inscriptions and pass.
    max_border_text: float = option(
        0.45,
        "watermarked or subtitled: share of a small window at the border that is sharp and does not move while the "
        "image does; 1 turns this off",
        minimum=0,
    )
    max_hash_distance: float = option(
        6.0, "duplicates: maximum number of different bits in perceptual hashes of 64 bits; -1 turns this off"
    )


@dataclass(kw_only=True)
class CaptionSettings(OptionGroup):
    """Captions: the table, then VIDEO.txt beside VIDEO.mp4, then a model. Clips without one are rejected."""

    captions: Path | None = option(
        None, ".csv or .jsonl with file_name and text; file_name is a clip's or a raw video's"
    )
    caption_model: str | None = option(
        None, "folder or Hub id of an image-text-to-text model, for clips without a caption"
    )
    caption_prompt: str = option(CAPTION_PROMPT, "question to ask the model")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.captions is not None and not self.captions.is_file():
            raise ValueError(f"`captions` must be an existing file, got {self.captions}.")


@dataclass(kw_only=True)
class MachineSettings(OptionGroup):
    """Where the work is done."""

    workers: int | None = option(None, "number of processes", minimum=1, default_text="one per core")
    ray: str | None = option(
        None,
        "address of a Ray cluster that sees both folders under the same paths: auto for the cluster around this "
        "machine, local for this machine alone; needs pip install '.[distributed]'",
        metavar="local|ADDRESS",
    )


@dataclass(kw_only=True)
class PreparationSettings(GroupedSettings):
    """All settings of a preparation, in groups."""

    folders: FolderSettings
    clips: ClipSettings = field(default_factory=ClipSettings)
    filters: FilterSettings = field(default_factory=FilterSettings)
    captions: CaptionSettings = field(default_factory=CaptionSettings)
    machines: MachineSettings = field(default_factory=MachineSettings)

    def __post_init__(self) -> None:
        shortest = max(self.filters.min_seconds, 0.1)
        if not self.clips.max_seconds >= shortest:  # NaN is not, either
            raise ValueError(f"`max_seconds` must be at least {shortest:g}, got {self.clips.max_seconds}.")

    @property
    def work_dir(self) -> Path:
        """Folder of the outcomes that a later run reuses."""
        return self.folders.output_dir.with_name(self.folders.output_dir.name + ".work")

    def published(self) -> dict[str, Any]:
        """Settings that the dataset's card lists."""
        return asdict(self.clips) | asdict(self.filters)

    def digest(self) -> str:
        """Hash of what affects the outcome of a single source; duplicates are sought among all of them later."""
        values = self.published()
        del values["max_hash_distance"]
        return hash_json([VERSION, values])
