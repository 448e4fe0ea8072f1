"""The tab that makes a clip again from the recipe in its file."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gradio as gr

from landscape_video.generation.generate_clip import Pipeline, animate_clip, generate_clip
from landscape_video.generation.recipe import Recipe, differences, models_to_repeat, read_recipe, same_frames
from landscape_video.web.clip_panel import ClipPanel, RunButtons, add_endpoint
from landscape_video.web.controls import PageError, check_prompt, settings_from, with_labels
from landscape_video.web.handlers import clip_updates, closing_errors, with_parameters
from landscape_video.web.image_tab import image_input, read_upload
from landscape_video.web.progress import progress_html
from landscape_video.web.texts import i18n, language_of, say
from landscape_video.web.workshop import Workshop


SUFFIXES = [".mp4", ".gif", ".webp", ".png"]


def repeat_tab(shop: Workshop) -> None:
    """Add the tab to the page that is being built."""
    handler = repeat_handler(shop)

    def show(path: str | None, request: gr.Request) -> dict[str, Any] | None:
        language = language_of(request)
        with closing_errors(language):
            return None if path is None else describe(check_recipe(path, shop, language))

    with gr.Tab(i18n("tab_repeat"), id="repeat"):
        gr.Markdown(i18n("repeat_text"))
        with gr.Row():
            with gr.Column():
                clip = gr.File(label=i18n("clip_file"), file_types=SUFFIXES, height=140, elem_id="clip-file")
                image = image_input(i18n("original_image"), "original-image")
                found = gr.JSON(show_label=False, elem_id="found-recipe")
                buttons = RunButtons(i18n("repeat"), "repeat")
            panel = ClipPanel()
        clip.change(show, clip, found, api_visibility="private")
        panel.connect(handler, [clip, image], [buttons.run.click], buttons.cancel)
        add_endpoint(handler, [clip, image], "repeat")


def check_recipe(path: str | None, shop: Workshop, language: str) -> Recipe:
    """Read a recipe, and hold it to the limits and the models of the page. Raises `PageError`."""
    if not path:
        raise PageError(say("error_clip", language))
    try:
        recipe = read_recipe(path)
    except ValueError as error:
        raise PageError(with_labels(str(error), language)) from error
    try:
        models_to_repeat(recipe, shop.models)
    except ValueError as error:
        raise PageError(say("error_model", language, reason=error)) from error
    for prompt in recipe.prompts:
        for text in prompt.values() if isinstance(prompt, dict) else [prompt]:
            check_prompt(text, shop.limits, language)
    if len(recipe.prompts) > shop.limits.stages:
        raise PageError(say("error_stages", language, limit=shop.limits.stages, count=len(recipe.prompts)))
    values = {name: value for name, value in asdict(recipe.settings).items() if name != "flow_weights"}
    settings_from(type(recipe.settings), values, shop.limits, language)
    return recipe


def describe(recipe: Recipe) -> dict[str, Any]:
    """The recipe as the page shows it."""
    return {"prompts": recipe.prompts, "picture": recipe.picture, **recipe.settings.as_metadata()}


def repeat_handler(shop: Workshop):
    """The handler of the tab: yields the values of `ClipPanel`'s outputs."""

    def handle(request: gr.Request, clip: str | None, image: str | None) -> Iterator[tuple]:
        language = language_of(request)
        with closing_errors(language):
            recipe = check_recipe(clip, shop, language)
            painting = read_upload(image, language) if recipe.from_image else None

        def make_clip(on_step, is_cancelled):
            pipe = shop.image_pipeline() if recipe.from_image else shop.text_pipeline()
            with frame_decoder_of(recipe, pipe):
                if painting is None:
                    made = generate_clip(pipe, recipe.prompts[0], recipe.settings, on_step, is_cancelled)
                else:
                    made = animate_clip(pipe, painting, recipe.prompts, recipe.settings, on_step, is_cancelled)
                    made.metadata["picture"] = Path(image).name
            made.metadata["decoder"] = recipe.models["decoder"]
            return made

        for video, progress, metadata in clip_updates(shop, make_clip, language, max(1, len(recipe.prompts))):
            if isinstance(video, str):
                progress = progress_html(verdict(Path(clip), Path(video), recipe, metadata, language))
            yield video, progress, metadata

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return with_parameters(
        handle,
        [
            inspect.Parameter("clip", kind, annotation=str),
            inspect.Parameter("image", kind, default=None, annotation=str | None),
        ],
        "Generate a clip again from the prompt, seed and settings in its file.",
        {"clip": "File of a clip that this program made.", "image": "The image that an animated clip began with."},
    )


@contextmanager
def frame_decoder_of(recipe: Recipe, pipe: Pipeline) -> Iterator[None]:
    """Decode with the VAE in a `with` block if the recipe's clip was; one job at a time uses the pipeline."""
    decoder = pipe.frame_decoder
    if recipe.models["decoder"] == "native":
        pipe.frame_decoder = None
    try:
        yield
    finally:
        pipe.frame_decoder = decoder


def verdict(clip: Path, again: Path, recipe: Recipe, metadata: dict[str, Any], language: str) -> str:
    """Whether the new clip has the frames of the old one, and if not, what differs."""
    if clip.suffix.lower() == again.suffix.lower() and same_frames(clip, again):
        return say("identical", language)
    reasons = differences(recipe.environment, metadata)
    return say("different", language, reasons="; ".join(reasons) or say("no_reason", language))
