"""Hold what all tabs of the page share: the models, their queue, the limits, and the folder of clips."""

import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from landscape_video.generation.generate_clip import Clip, Pipeline
from landscape_video.generation.latent_preview import LatentPreview
from landscape_video.generation.models import load_pipeline
from landscape_video.generation.settings import (
    ImageModelSettings,
    ImageToVideoSettings,
    ModelSettings,
    TextToVideoSettings,
)
from landscape_video.generation.speed_estimate import SpeedEstimate
from landscape_video.generation.vocabulary import unknown_words
from landscape_video.web.controls import Limits
from landscape_video.web.jobs import ModelQueue
from landscape_video.web.styles import camera_success
from landscape_video.web.texts import LANGUAGES, say
from motion_adapter.sources import local_path
from pipeline_landscape_video.landscape_optical_flow import estimator_at_hand
from pipeline_landscape_video.video_writing import write_video


@dataclass
class Workshop:
    """The state of a running page. Only the person who starts the page chooses its models.

    Args:
        models: Models to load.
        clips: Folder that receives the clips.
        limits: The most that a visitor may ask for.
        shared_gallery: Whether visitors see all clips of the folder; else the page has no gallery.
    """

    models: ImageModelSettings
    clips: Path
    limits: Limits = Limits()
    shared_gallery: bool = True
    queue: ModelQueue = field(default_factory=ModelQueue)

    def __post_init__(self) -> None:
        self._pipelines: dict[str, Pipeline] = {}
        self._loading = threading.Lock()
        self.speed = SpeedEstimate()
        self.flow = estimator_at_hand()
        folder = local_path(self.models.model)
        self.camera_success = {language: camera_success(folder, language) for language in LANGUAGES}
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
        return self.defaults(TextToVideoSettings, self.text_pipeline())

    def estimate_text(self, values: Mapping[str, Any], language: str) -> str:
        """What a clip with these values of controls will take, in words; empty before the speed is known."""
        expected = self.speed.predict(values)
        if expected is None:
            return ""
        seconds, gib = expected
        memory = "?" if gib is None else f"{gib:.1f} GB"
        return say("estimate", language, seconds=max(1, round(seconds)), memory=memory)

    def measure_speed(self) -> None:
        """Make a short clip, for the estimates of time and memory."""
        pipe = self.text_pipeline()
        frames = min(8, self.limits.frames)
        settings = TextToVideoSettings(num_frames=frames, steps=3, seed=0, flow=self.flow, **self.sizes(pipe))
        self.speed.measure(pipe, settings)

    @staticmethod
    def sizes(pipe: Pipeline) -> dict[str, int]:
        """The size of the frames that the model was trained on."""
        height, width = pipe.clip_size()
        return {"height": height, "width": width}

    def can_animate(self) -> bool:
        """Whether the model has an image retention branch, or the one who started the page gave one."""
        folder = local_path(self.models.model)
        return self.models.image_retention is not None or (
            folder is not None and (folder / "image_retention").is_dir()
        )

    def image_defaults(self) -> dict[str, Any]:
        """The values of the controls for animated images when the page opens."""
        return self.defaults(ImageToVideoSettings, self.image_pipeline())

    def defaults(self, settings_class: type[TextToVideoSettings], pipe: Pipeline) -> dict[str, Any]:
        """What a pipeline recommends, by setting."""
        settings = settings_class().filled_in(pipe.resolve_sampling())
        found = {each.name: getattr(settings, each.name) for each in fields(settings)}
        return found | self.sizes(pipe) | {"flow": self.flow, "seed": None}

    def allowed(self, name: str) -> tuple[str, ...] | None:
        """The choices of a setting that a visitor has; None for all. Flow models are never downloaded for them."""
        return tuple({"dis", self.flow}) if name == "flow" else None

    def unknown_words(self, prompt: str) -> list[str]:
        """Words of a prompt that the model was not trained on."""
        return unknown_words(prompt, local_path(self.models.model))

    def save(self, clip: Clip) -> Path:
        """Write a clip with its metadata into the folder of clips, under a name of its own."""
        path = self.new_path()
        write_video(path, clip.frames, clip.fps, self.models.as_metadata() | clip.metadata)
        return path

    def new_path(self) -> Path:
        """A name in the folder of clips that no other clip has."""
        self.clips.mkdir(parents=True, exist_ok=True)
        # The random part keeps visitors from guessing the names of other visitors' clips.
        return self.clips / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(8)}.mp4"

    def saved_clips(self) -> list[Path]:
        """The clips in the folder, newest first."""
        return sorted(self.clips.glob("*.mp4"), key=lambda path: path.stat().st_mtime, reverse=True)
