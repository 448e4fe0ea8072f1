"""The tab that generates a clip from an image."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from landscape_video.generation.generate_clip import animate_clip
from landscape_video.generation.images import read_image
from landscape_video.generation.settings import ImageToVideoSettings
from landscape_video.web.clip_panel import ClipPanel, RunButtons, SettingsPanel, add_endpoint
from landscape_video.web.controls import PageError, check_prompt, fields_on_the_page, settings_from
from landscape_video.web.handlers import clip_updates, closing_errors, parameter_of, with_parameters
from landscape_video.web.texts import i18n, language_of, say
from landscape_video.web.workshop import Workshop
from pipeline_landscape_video.landscape_pictures import fit_image


FIELDS = fields_on_the_page(ImageToVideoSettings)
NAMES = [each.name for each in FIELDS]


def image_tab(shop: Workshop) -> None:
    """Add the tab to the page that is being built; nothing for a model that cannot animate images."""
    if not shop.can_animate():
        return
    handler = animate_handler(shop)
    with gr.Tab(i18n("tab_image"), id="image"):
        with gr.Row():
            with gr.Column():
                with gr.Row():
                    image = image_input(i18n("painting"), "image")
                    fitted = gr.Image(label=i18n("fitted"), interactive=False, height=240, buttons=[])
                prompts = gr.Textbox(label=i18n("stages_prompt"), lines=2, elem_id="image-prompts")
                settings = SettingsPanel(ImageToVideoSettings, shop.image_defaults(), shop)
                buttons = RunButtons(i18n("animate"), "animate")
            panel = ClipPanel()
        by_name = dict(zip(NAMES, settings.controls, strict=True))
        shown = [image, by_name["height"], by_name["width"], by_name["fit"]]
        for changed in shown:
            changed.change(show_fitted, shown, fitted, show_progress="hidden", api_visibility="private")
        inputs = [image, prompts, *settings.controls]
        panel.connect(handler, inputs, [buttons.run.click], buttons.cancel)
        add_endpoint(handler, inputs, "animate")


def image_input(label: Any, name: str) -> gr.Image:
    """An upload that hands on the file as it is.

    Gradio's own arrays lose 16 bits and transparency, and its errors do not say which file is broken.
    """
    image = gr.Image(label=label, type="filepath", sources=["upload", "clipboard"], height=240, elem_id=name)
    image.preprocess = lambda payload: None if payload is None else payload.path
    return image


def read_upload(path: str | None, language: str) -> Image.Image:
    """The uploaded image. Raises `PageError` if it is missing or not usable."""
    if not path:
        raise PageError(say("error_image", language))
    try:
        return read_image(path)
    except ValueError as error:  # the visitor knows the file's name, not where the server keeps it
        raise PageError(str(error).replace(str(path), Path(path).name)) from error


def show_fitted(path: str | None, height: float, width: float, fit: str, request: gr.Request) -> np.ndarray | None:
    """The part of the image that becomes the first frame."""
    if not path:
        return None
    language = language_of(request)
    with closing_errors(language):
        fitted = fit_image(read_upload(path, language), int(height), int(width), fit)
    return (fitted.movedim(0, -1).numpy() * 255).round().astype(np.uint8)


def animate_handler(shop: Workshop):
    """The handler of the tab: yields the values of `ClipPanel`'s outputs."""

    def handle(request: gr.Request, image: str | None, prompts: str, *values: Any) -> Iterator[tuple]:
        language = language_of(request)
        with closing_errors(language):
            painting = read_upload(image, language)
            lines = [line for line in (prompts or "").splitlines() if line.strip()]
            texts = [check_prompt(line, shop.limits, language) for line in lines]
            if len(texts) > shop.limits.stages:
                raise PageError(say("error_stages", language, limit=shop.limits.stages, count=len(texts)))
            settings = settings_from(
                ImageToVideoSettings, dict(zip(NAMES, values, strict=True)), shop.limits, language
            )
            settings.check_memory(stages=max(1, len(texts)))

        def make_clip(on_step, is_cancelled):
            clip = animate_clip(shop.image_pipeline(), painting, texts, settings, on_step, is_cancelled)
            clip.metadata["picture"] = Path(image).name
            return clip

        yield from clip_updates(shop, make_clip, language, stages=max(1, len(texts)))

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return with_parameters(
        handle,
        [
            inspect.Parameter("image", kind, annotation=str),
            inspect.Parameter("prompts", kind, default="", annotation=str),
            *map(parameter_of, FIELDS),
        ],
        "Generate a short video that begins with an image of a landscape painting.",
        {"image": "File of the image.", "prompts": "What moves, and how: one line for each stage."}
        | {each.name: each.metadata["help"] for each in FIELDS},
    )
