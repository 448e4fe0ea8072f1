"""Hold what all tabs of the page share: the models, their queue, the limits, and the folder of clips."""

import itertools
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from landscape_video.generation.generate_clip import Clip, Pipeline
from landscape_video.generation.latent_preview import LatentPreview
from landscape_video.generation.models import load_pipeline
from landscape_video.generation.settings import ImageModelSettings, ModelSettings, TextToVideoSettings
from landscape_video.generation.vocabulary import unknown_words
from landscape_video.web.controls import Limits
from landscape_video.web.jobs import ModelQueue
from motion_adapter.sources import local_path
from pipeline_landscape_video.landscape_optical_flow import estimator_at_hand
from pipeline_landscape_video.video_writing import write_video


@dataclass
class Workshop:
    """The state of a running page. Its models are chosen by the one who starts the page, and by nobody else.

    Args:
        models: Models to load.
        clips: Folder that receives the clips.
        limits: The most that a visitor may ask for.
        shared_gallery: Whether every visitor sees all clips of the folder, or only those of their own tab.
    """

    models: ImageModelSettings
    clips: Path
    limits: Limits = Limits()
    shared_gallery: bool = True
    queue: ModelQueue = field(default_factory=ModelQueue)

    def __post_init__(self) -> None:
        self._pipelines: dict[str, Pipeline] = {}
        self.flow = estimator_at_hand()
        self._loading = threading.Lock()
        self._numbers = itertools.count(1)
        folder = local_path(self.models.model)
        self.preview = None if folder is None else LatentPreview.from_folder(folder)

    def text_pipeline(self) -> Pipeline:
        """The text-to-video pipeline, loaded at its first use."""
        names = {each.name for each in fields(ModelSettings)}
        models = ModelSettings(**{name: getattr(self.models, name) for name in names})
        return self._load("text", models)

    def image_pipeline(self) -> Pipeline:
        """The image-to-video pipeline, loaded at its first use. Raises `ValueError` if the model has none."""
        return self._load("image", self.models)

    def _load(self, task: str, models: ModelSettings) -> Pipeline:
        with self._loading:
            if task not in self._pipelines:
                self._pipelines[task] = load_pipeline(models)
                self._pipelines[task].set_progress_bar_config(disable=True)
            return self._pipelines[task]

    def text_defaults(self) -> dict[str, Any]:
        """What the model recommends, by setting: the values of the controls when the page opens."""
        pipe = self.text_pipeline()
        return self._defaults(TextToVideoSettings, pipe)

    def _defaults(self, settings_class: type[TextToVideoSettings], pipe: Pipeline) -> dict[str, Any]:
        settings = settings_class().filled_in(pipe.resolve_sampling())
        side = pipe.unet.config.sample_size * pipe.vae_scale_factor
        found = {each.name: getattr(settings, each.name) for each in fields(settings)}
        return found | {"height": side, "width": side, "flow": self.flow, "seed": None}

    def allowed(self, name: str) -> tuple[str, ...] | None:
        """The choices of a setting that a visitor has; None for all. Flow models are never downloaded for them."""
        return tuple({"dis", self.flow}) if name == "flow" else None

    def unknown_words(self, prompt: str) -> list[str]:
        """Words of a prompt that the model was not trained on."""
        return unknown_words(prompt, local_path(self.models.model))

    def save(self, clip: Clip) -> Path:
        """Write a clip with its metadata into the folder of clips, under a name of its own."""
        self.clips.mkdir(parents=True, exist_ok=True)
        stamp = time.strftime("%Y%m%d-%H%M%S")
        path = next(path for path in self._names(stamp) if not path.exists())
        write_video(path, clip.frames, clip.fps, self.models.as_metadata() | clip.metadata)
        return path

    def _names(self, stamp: str) -> Iterator[Path]:
        return (self.clips / f"{stamp}-{number:03d}.mp4" for number in self._numbers)

    def saved_clips(self) -> list[Path]:
        """The clips in the folder, newest first."""
        return sorted(self.clips.glob("*.mp4"), key=lambda path: path.stat().st_mtime, reverse=True)
