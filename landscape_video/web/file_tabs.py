"""The tabs that interpolate a video, show the clips made so far, and explain the page."""

import inspect
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from landscape_video.generation.generate_clip import GenerationCancelled
from landscape_video.web.clip_panel import ClipPanel, RunButtons, add_endpoint
from landscape_video.web.controls import PageError
from landscape_video.web.handlers import closing_errors, with_parameters
from landscape_video.web.jobs import IsCancelled
from landscape_video.web.progress import progress_html
from landscape_video.web.texts import i18n, language_of, say
from landscape_video.web.workshop import Workshop
from pipeline_landscape_video.video_io import VideoError, probe_video, read_metadata


TIMES = (("2x", 1), ("4x", 2), ("8x", 3))


def interpolate_tab(shop: Workshop) -> None:
    """Add the tab that multiplies the frame rate of a video."""
    handler = interpolate_handler(shop)
    with gr.Tab(i18n("tab_interpolate"), id="interpolate"):
        with gr.Row():
            with gr.Column():
                # Without a format, the upload stays as it is.
                video = gr.Video(
                    label=i18n("source_video"), sources=["upload"], format=None, height=320, elem_id="video"
                )
                times = gr.Radio(TIMES, value=1, label=i18n("times"))
                buttons = RunButtons(i18n("smooth"), "smooth")
            panel = ClipPanel()
        panel.connect(handler, [video, times], [buttons.run.click], buttons.cancel)
        add_endpoint(handler, [video, times], "interpolate")


def interpolate_handler(shop: Workshop):
    """The handler of the tab: yields the values of `ClipPanel`'s outputs."""

    def handle(request: gr.Request, video: str | None, times: int) -> Iterator[tuple]:
        language, started = language_of(request), time.monotonic()
        yield None, progress_html(say("waiting", language)), None
        with closing_errors(language):
            check_video(video, shop, language)
            output = shop.new_path()
            for report in shop.queue.run(
                lambda report, cancelled: interpolate(video, output, times, report, cancelled)
            ):
                if isinstance(report, int):
                    message = say("percent", language, percent=report)
                    yield gr.skip(), progress_html(message, fraction=report / 100), gr.skip()
                elif report == output:
                    message = say("made", language, seconds=round(time.monotonic() - started))
                    yield str(output), progress_html(message), read_metadata(output)
                else:
                    yield gr.skip(), gr.skip(), gr.skip()

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return with_parameters(
        handle,
        [
            inspect.Parameter("video", kind, annotation=str),
            inspect.Parameter("times", kind, default=1, annotation=int),
        ],
        "Double the frame rate of a video, once or several times.",
        {"video": "File of the video.", "times": "Doublings of the frame rate: 1, 2 or 3."},
    )


def check_video(video: str | None, shop: Workshop, language: str) -> None:
    """Raise `PageError` for a video that is missing, damaged, or larger than the page allows."""
    if not video:
        raise PageError(say("error_video", language))
    try:
        info = probe_video(video)
    except (VideoError, OSError) as error:
        raise PageError(str(error).replace(str(video), Path(video).name)) from error
    frames, side = shop.limits.video_frames, shop.limits.video_side
    count = info.num_frames or 0
    if count > frames or max(info.width, info.height) > side:
        size = {"width": info.width, "height": info.height}
        raise PageError(say("error_video_size", language, frames=frames, side=side, count=count, **size))


def interpolate(
    video: str, output: Path, times: int, report: Callable[[int], None], is_cancelled: IsCancelled
) -> Path:
    """Run `landscape-video interpolate` in a process of its own, which a cancel can end at any time."""
    output.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "landscape_video", "interpolate", video, str(output), "--times", str(int(times))]
    with subprocess.Popen([*command, "--flow", "dis"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        said = b""
        while chunk := process.stderr.read1(4096):
            said += chunk
            if percents := re.findall(rb"(\d+)%\|", said[-400:]):
                report(int(percents[-1]))
            if is_cancelled():
                process.terminate()  # the command removes what it has half written
                raise GenerationCancelled
    if process.returncode:
        message = said.decode(errors="replace").strip().splitlines()[-1].removeprefix("landscape-video: ")
        raise PageError(message.replace(video, Path(video).name).replace(str(output), output.name))
    return output


def gallery_tab(shop: Workshop) -> None:
    """Add the tab that shows the clips of the page's folder, each with its recipe."""

    def list_clips() -> list[str]:
        return [str(path) for path in shop.saved_clips()]

    def show_recipe(event: gr.SelectData) -> dict[str, Any]:
        # Only the name counts, so that a request cannot read files elsewhere.
        name = Path(event.value["video"]["path"]).name
        path = next((path for path in shop.saved_clips() if path.name == name), None)
        return {} if path is None else {"file": path.name, **read_metadata(path)}

    with gr.Tab(i18n("tab_gallery"), id="gallery") as tab:
        refresh = gr.Button(i18n("refresh"), size="sm")
        gallery = gr.Gallery(show_label=False, columns=4, height="auto", object_fit="contain", elem_id="gallery")
        gr.Markdown(i18n("choose_clip"))
        recipe = gr.JSON(show_label=False)
    for trigger in (tab.select, refresh.click):
        trigger(list_clips, outputs=gallery, queue=False, api_visibility="private")
    gallery.select(show_recipe, outputs=recipe, queue=False, api_visibility="private")


def about_tab(shop: Workshop) -> None:
    """Add the tab that says what the page can do."""
    with gr.Tab(i18n("tab_about"), id="about"):
        gr.Markdown(i18n("about_text"))
