"""Turn work on the models into handlers of the page: generators that report progress and raise readable errors."""

import inspect
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import Field, dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from landscape_video.generation.generate_clip import Clip, OnStep, Progress
from landscape_video.web.controls import PageError, with_labels
from landscape_video.web.jobs import IsCancelled
from landscape_video.web.progress import StepClock, progress_html, step_message
from landscape_video.web.texts import say
from landscape_video.web.workshop import Workshop


logger = logging.getLogger(__name__)

MakeClip = Callable[[OnStep, IsCancelled], Clip]


@dataclass(frozen=True)
class Step:
    """What a job reports after a denoising step."""

    done: int
    steps: int
    preview: np.ndarray | None


@dataclass(frozen=True)
class Saved:
    """A finished clip and its file."""

    clip: Clip
    path: Path


def run_clip(shop: Workshop, make_clip: MakeClip, stages: int = 1) -> Iterator[Step | Saved | None]:
    """Make a clip as a job of the queue, and save it. Yields a `Step` for each step, None in between, last `Saved`."""

    def work(report: Callable[[Step], None], is_cancelled: IsCancelled) -> Saved:
        report(Step(0, 0, None))
        clip = make_clip(lambda progress: report(_step_of(progress, shop, stages)), is_cancelled)
        return Saved(clip, shop.save(clip))

    return shop.queue.run(work)


def _step_of(progress: Progress, shop: Workshop, stages: int) -> Step:
    done = progress.stage * progress.num_steps + progress.step + 1
    preview = shop.preview(progress.latents[0]).numpy() if shop.preview else progress.preview()[None]
    return Step(done, stages * progress.num_steps, preview)


def clip_updates(
    shop: Workshop, make_clip: MakeClip, language: str, stages: int = 1
) -> Iterator[tuple[Any, str, Any]]:
    """Yield values of the three outputs of a tab while a clip is made: video, progress as HTML, and recipe."""
    started, clock, preview = time.monotonic(), None, None
    yield None, progress_html(say("waiting", language)), None
    with closing_errors(language):
        for report in run_clip(shop, make_clip, stages):
            if isinstance(report, Saved):
                seconds = round(time.monotonic() - started)
                message = say("done", language, seconds=seconds, seed=report.clip.metadata["seed"])
                yield str(report.path), progress_html(message), report.clip.metadata
            elif report is not None and not report.done:
                yield gr.skip(), progress_html(say("loading", language)), gr.skip()
            elif report is not None:
                clock = clock or StepClock(report.steps, started=started)
                clock.done, preview = report.done, report.preview
                is_last = report.done == report.steps
                message = say("finishing", language) if is_last else step_message(clock, language)
                yield gr.skip(), progress_html(message, preview, report.done / report.steps), gr.skip()
            else:
                yield gr.skip(), gr.skip(), gr.skip()


@contextmanager
def closing_errors(language: str) -> Iterator[None]:
    """Turn the errors of a `with` block into messages on the page, in the visitor's language."""
    try:
        yield
    except gr.Error:
        raise
    except Exception as error:
        raise gr.Error(message_of(error, language), print_exception=False) from error


def message_of(error: Exception, language: str) -> str:
    """What a visitor reads about an error. An unforeseen one is logged, and its details stay on the server."""
    if isinstance(error, PageError):
        return str(error)
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower() or "allocate memory" in str(error):
        return say("error_memory", language)
    if isinstance(error, FloatingPointError):
        return say("error_nan", language)
    if isinstance(error, ValueError):
        return with_labels(str(error), language)
    logger.error("A request failed.", exc_info=error)
    return say("error_unforeseen", language)


def with_parameters(
    handler: Callable[..., Any],
    parameters: Sequence[inspect.Parameter],
    description: str,
    explanations: Mapping[str, str],
) -> Callable[..., Any]:
    """Give a handler of positional values the signature and docstring that Gradio's API and MCP describe.

    Args:
        handler: Generator function of the request, then of the values of all parameters.
        parameters: One for each value, with an annotation.
        description: First line of the docstring.
        explanations: What each parameter means, by name.
    """

    def described(*values: Any) -> Any:
        yield from handler(*values)

    request = inspect.Parameter("request", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=gr.Request)
    described.__signature__ = inspect.Signature([request, *parameters])
    described.__annotations__ = {each.name: each.annotation for each in (*parameters, request)}
    lines = [f"    {each.name}: {explanations[each.name]}" for each in parameters]
    described.__doc__ = "\n".join([description, "", "Args:", *lines])
    return described


def copy_description(source: Callable[..., Any], target: Callable[..., Any]) -> None:
    """Give a function the signature and docstring of a handler that `with_parameters` made."""
    for name in ("__signature__", "__annotations__", "__doc__"):
        setattr(target, name, getattr(source, name))


def parameter_of(each: Field) -> inspect.Parameter:
    """The parameter of a handler for a setting."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Parameter(each.name, kind, default=each.default, annotation=each.type)
