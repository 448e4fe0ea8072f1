"""The two halves of a tab that makes clips: its settings on the left, its results on the right."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import gradio as gr
from gradio.context import Context

from landscape_video.generation.presets import PRESETS, has_few_step_weights
from landscape_video.generation.settings import TextToVideoSettings
from landscape_video.web.controls import MAIN, fields_on_the_page, make_control
from landscape_video.web.handlers import copy_description
from landscape_video.web.jobs import CONCURRENCY_ID
from landscape_video.web.progress import progress_html
from landscape_video.web.texts import LANGUAGES, i18n, language_of, say
from landscape_video.web.workshop import Workshop


QUALITIES = ("draft", "standard", "fine")  # presets that the page offers
# Settings that decide what a clip takes.
ESTIMATED_FROM = ("num_frames", "steps", "height", "width", "guidance_scale")


class SettingsPanel:
    """Controls of all settings of a class: the main ones in sight, the others folded away.

    Args:
        settings_class: Class of the settings.
        defaults: Values when the page opens, by name.
        shop: The page's state.

    Attributes:
        controls: Controls in the order of `fields_on_the_page`.
    """

    def __init__(self, settings_class: type[TextToVideoSettings], defaults: Mapping[str, Any], shop: Workshop) -> None:
        each_field = fields_on_the_page(settings_class)
        recommended, changed = defaults, preset_values("standard", defaults, shop)
        defaults = {**defaults, **changed}

        def make(name: str) -> gr.Component:
            each = next(each for each in each_field if each.name == name)
            return make_control(each, defaults.get(name, each.default), shop.limits, shop.allowed(name))

        preset = gr.Radio(
            [(i18n(name), name) for name in QUALITIES],
            value="standard",
            label=i18n("label_preset"),
            info=i18n("info_preset"),
            elem_classes="lv-preset",
        )
        accept_labels(preset)
        with gr.Row():
            made = {"preset": preset} | {name: make(name) for name in MAIN}
        with gr.Accordion(i18n("advanced"), open=False):
            made |= {each.name: make(each.name) for each in each_field if each.name not in made}
        self.controls = [made[each.name] for each in each_field]
        preset.input(
            lambda name: list(preset_values(name, recommended, shop).values()),
            preset,
            [made[name] for name in changed],
            queue=False,
            api_visibility="private",
        )
        add_estimate(made, shop)


def accept_labels(qualities: gr.Radio) -> None:
    """Take the label of a quality for its value: after a switch of the language, Gradio's page sends the label.

    The method of the instance is replaced, because Gradio writes a .pyi file beside the code of a subclass.
    """
    values = {say(name, language): name for name in QUALITIES for language in LANGUAGES}
    preprocess = qualities.preprocess
    qualities.preprocess = lambda payload: preprocess(values.get(payload, payload))


def preset_values(name: str, recommended: Mapping[str, Any], shop: Workshop) -> dict[str, Any]:
    """The settings that a preset determines, by name; what it leaves to the model is as recommended."""
    sampling = PRESETS[name].sampling
    if name == "draft" and has_few_step_weights(shop.text_pipeline()):
        sampling = sampling | {"guidance_scale": 1.0}
    names = {"steps": "num_inference_steps", "guidance_scale": "guidance_scale", "eta": "eta"}
    values = {each: sampling.get(argument, recommended[each]) for each, argument in names.items()}
    return values | {"steps": min(values["steps"], shop.limits.steps)}


def add_estimate(controls: Mapping[str, gr.Component], shop: Workshop) -> None:
    """Say what a clip will take, when the page opens and whenever a control that matters changes."""
    shown = gr.Markdown(elem_classes="lv-estimate")
    asked = [controls[name] for name in ESTIMATED_FROM]

    def estimate(*values: Any) -> str:
        request, *values = values
        return shop.estimate_text(dict(zip(ESTIMATED_FROM, values, strict=True)), language_of(request))

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    request = inspect.Parameter("request", kind, annotation=gr.Request)
    estimate.__signature__ = inspect.Signature([request, *(inspect.Parameter(name, kind) for name in ESTIMATED_FROM)])
    estimate.__annotations__ = {"request": gr.Request}
    gr.on(
        [Context.root_block.load, *(control.change for control in asked)],
        estimate,
        asked,
        shown,
        queue=False,
        show_progress="hidden",
        api_visibility="private",
    )


class RunButtons:
    """The button that starts a job, and the one that ends it.

    Args:
        label: Text of the first one.
        name: Its id on the page.
    """

    def __init__(self, label: Any, name: str) -> None:
        with gr.Row():
            self.run = gr.Button(label, variant="primary", elem_id=name)
            self.cancel = gr.Button(i18n("cancel"), elem_id=f"cancel-{name}")


class ClipPanel:
    """A column with the clip, the progress, and the recipe of the clip."""

    def __init__(self) -> None:
        with gr.Column():
            self.video = gr.Video(label=i18n("clip"), autoplay=True, loop=True, interactive=False, height=420)
            self.progress = gr.HTML(elem_classes="lv-progress")
            with gr.Accordion(i18n("recipe"), open=False):
                self.recipe = gr.JSON(show_label=False)
        self.outputs = [self.video, self.progress, self.recipe]

    def connect(
        self,
        handler: Callable[..., Any],
        inputs: Sequence[gr.Component],
        triggers: Sequence[Callable[..., Any]],
        cancel: gr.Button,
    ) -> None:
        """Run a handler at each trigger, one job at a time over the whole page, until `cancel` is pressed.

        Args:
            handler: Generator of values of the outputs.
            inputs: Its arguments.
            triggers: Event listeners, such as `button.click`.
        """
        runs = [
            trigger(
                handler,
                inputs=list(inputs),
                outputs=self.outputs,
                concurrency_id=CONCURRENCY_ID,
                concurrency_limit=1,
                show_progress_on=self.progress,
                api_visibility="private",
            )
            for trigger in triggers
        ]

        def confirm(request: gr.Request) -> str:
            return progress_html(say("cancelled", language_of(request)))

        cancel.click(confirm, outputs=self.progress, cancels=runs, queue=False, api_visibility="private")


def add_endpoint(handler: Callable[..., Any], inputs: Sequence[gr.Component], name: str) -> None:
    """Offer a handler to programs: an endpoint that returns the clip's file and its recipe, without the progress.

    Args:
        handler: Generator that `with_parameters` described.
        inputs: Controls of its arguments.
        name: Name of the endpoint, and of the tool of the Model Context Protocol.
    """

    def without_progress(*values: Any) -> Iterator[tuple[Any, Any]]:
        for video, _, recipe in handler(*values):
            yield video, recipe

    copy_description(handler, without_progress)
    without_progress.__name__ = name  # the tool's name
    trigger = gr.Button(visible=False)
    outputs = [gr.Video(visible=False, label="clip"), gr.JSON(visible=False, label="recipe")]
    trigger.click(
        without_progress,
        inputs=list(inputs),
        outputs=outputs,
        concurrency_id=CONCURRENCY_ID,
        concurrency_limit=1,
        api_name=name,
    )
