"""The tab that generates a clip from a prompt."""

import inspect
from collections.abc import Iterator
from typing import Any

import gradio as gr

from landscape_video.generation.generate_clip import generate_clip
from landscape_video.generation.settings import TextToVideoSettings
from landscape_video.web.clip_panel import ClipPanel, RunButtons, SettingsPanel, add_endpoint
from landscape_video.web.controls import check_prompt, fields_on_the_page, settings_from
from landscape_video.web.handlers import clip_updates, closing_errors, parameter_of, with_parameters
from landscape_video.web.styles import CAMERAS, PALETTES, write_phrase
from landscape_video.web.texts import i18n, language_of
from landscape_video.web.workshop import Workshop


EXAMPLES = (
    "mist drifting over layered mountains, a boat on a calm lake, in ink wash, the camera pans left",
    "a tall white waterfall plunges down, old pines sway in the wind, in blue-green tones, the camera pans right",
    "水墨山水，三重远山，云雾向左飘，江上一叶孤舟向右行，镜头缓缓推近",
    "青绿山水，一道飞瀑直下，古松随风摇曳，一轮红日高悬，镜头慢慢左移",
)
FIELDS = fields_on_the_page(TextToVideoSettings)
NAMES = [each.name for each in FIELDS]


def text_tab(shop: Workshop) -> None:
    """Add the tab to the page that is being built."""
    handler = generate_handler(shop)
    with gr.Tab(i18n("tab_text"), id="text"):
        with gr.Row():
            with gr.Column():
                prompt = gr.Textbox(
                    label=i18n("prompt"),
                    placeholder=i18n("prompt_hint"),
                    lines=3,
                    max_length=shop.limits.prompt,
                    elem_id="prompt",
                )
                style_buttons(prompt, shop)
                settings = SettingsPanel(TextToVideoSettings, shop.text_defaults(), shop)
                buttons = RunButtons(i18n("generate"), "generate")
            panel = ClipPanel()
        inputs = [prompt, *settings.controls]
        panel.connect(handler, inputs, [buttons.run.click, prompt.submit], buttons.cancel)
        gr.Markdown(i18n("examples"), elem_classes="lv-heading")
        with gr.Row():
            for text in EXAMPLES:
                example = gr.Button(text, size="sm", elem_classes="lv-example")
                chosen = example.click(lambda text=text: text, outputs=prompt, queue=False, api_visibility="private")
                panel.connect(handler, inputs, [chosen.then], buttons.cancel)
        add_endpoint(handler, inputs, "generate")


def style_buttons(prompt: gr.Textbox, shop: Workshop) -> None:
    """Buttons that write the phrases of palettes and camera moves into a prompt."""
    for kind, values in (("palette", PALETTES), ("camera", CAMERAS)):
        gr.Markdown(i18n(kind), elem_classes="lv-heading")
        with gr.Row(elem_classes="lv-styles"):
            for value in values:
                button = gr.Button(i18n(f"{kind}_{value}"), size="sm", min_width=60, elem_id=f"{kind}-{value}")

                def write(text: str, request: gr.Request, kind: str = kind, value: str = value) -> str:
                    return write_phrase(text, kind, value, language_of(request))

                button.click(write, prompt, prompt, queue=False, show_progress="hidden", api_visibility="private")


def generate_handler(shop: Workshop):
    """The handler of the tab: yields the values of `ClipPanel`'s outputs."""

    def handle(request: gr.Request, prompt: str, *values: Any) -> Iterator[tuple]:
        language = language_of(request)
        with closing_errors(language):
            text = check_prompt(prompt, shop.limits, language)
            settings = settings_from(TextToVideoSettings, dict(zip(NAMES, values, strict=True)), shop.limits, language)
            settings.check_memory()
        yield from clip_updates(
            shop,
            lambda on_step, is_cancelled: generate_clip(shop.text_pipeline(), text, settings, on_step, is_cancelled),
            language,
        )

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return with_parameters(
        handle,
        [inspect.Parameter("prompt", kind, annotation=str), *map(parameter_of, FIELDS)],
        "Generate a short landscape-painting video from a prompt in English or Chinese.",
        {"prompt": "What to generate, and how it moves."} | {each.name: each.metadata["help"] for each in FIELDS},
    )
