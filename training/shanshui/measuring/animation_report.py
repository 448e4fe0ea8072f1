"""Write the results of `measure_image_to_video.py` as Markdown for a model card."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from landscape_video.evaluation.metrics.intervals import Interval
from motion_adapter.code_files import BRANCH
from motion_adapter.markdown import markdown_table
from shanshui.measuring.argument_checks import ArgumentCheck
from shanshui.measuring.report import CHECK_HEADER, check_row, versions_text
from shanshui.renderer.constants import PICTURES_SEED
from shanshui.stages.model_card import training_table, weights_table


ROWS = {
    "pictured": "text and image",
    "free": "nothing held",
    "text_only": "text alone",
    "rendered": "rendered clips",
}


@dataclass(frozen=True)
class AnimationResults:
    """Everything that one run of `measure_image_to_video.py` measured.

    Args:
        settings: What the results depend on.
        figures: Values by the kind of clips (`ROWS`) and by name.
        distances: Distance to the rendered clips, by the kind of clips.
        checks: What the model must reach.
    """

    settings: dict[str, Any]
    figures: dict[str, dict[str, Interval]]
    distances: dict[str, float]
    checks: list[ArgumentCheck]


def markdown(results: AnimationResults) -> str:
    """Format the tables for a model card."""
    settings = results.settings
    order = settings["guidance_order"].replace("_", " ").replace("picture", "image")
    names = list(results.figures["pictured"])
    rows = []
    for kind, title in ROWS.items():
        distance = f"{results.distances[kind]:.3f}" if kind in results.distances else ""
        rows.append((title, *(results.figures[kind][name].text() for name in names), distance))
    parts = [
        f"Measured by `training/shanshui/measure_image_to_video.py` on {settings['pictures']} held-out rendered first "
        f"frames (scenes of seed {settings['seed']}). The texts ({settings['language']}) send the camera in another "
        f"direction than the scenes of the images do. {settings['steps']} steps, "
        f"text guidance {settings['guidance_scale']:g}, "
        f"image guidance {settings['image_guidance_scale']:g} ({order}), eta {settings['eta']:g}, "
        f"{settings['num_frames']} frames of {settings['size']} x {settings['size']}, {settings['dtype']}, the first "
        "frame held as `animate` does, no interpolation. The first two checks hold nothing. Another text, other noise "
        f"and stages are measured on {settings['pairs']} of the images. 95 % bootstrap intervals in brackets. "
        f"{versions_text(settings)}",
        markdown_table(CHECK_HEADER, map(check_row, results.checks)),
        "The same prompts with and without the image (DreamVideo Table 2), and rendered clips of the same image and "
        "text. FFF compares the first frame with the image. Motion is the flow of the median clip in pixels per "
        "frame. Flicker is what flow does not explain, in gray levels out of 255. Distance is the polynomial MMD of "
        "CLIP embeddings to the rendered clips, without the pairs of one scene.",
        markdown_table(("Clips from", *names, "distance"), rows),
    ]
    return "\n\n".join(parts) + "\n"


def card_section(model: Path, run_dir: Path, results: AnimationResults) -> str:
    """The tables, after what the retention branch is and, where its logs are in `run_dir`, how it was trained."""
    parts = [
        "The image retention branch (DreamVideo) in `image_retention/` animates an image: "
        '`landscape-video animate painting.png "mist drifting right"`. It was trained by '
        "`training/shanshui/train_tiny.py --stages pictures retention`, first on single frames, then on whole clips, "
        f"while all other weights were frozen. Its rendered clips (seed {PICTURES_SEED}) have first frames that do "
        "not tell where camera and boat go.",
        weights_table({BRANCH: model / BRANCH / "diffusion_pytorch_model.safetensors"}),
    ]
    stages = [stage for stage in ("pictures", "retention") if (run_dir / stage / "log.jsonl").exists()]
    if stages:
        parts.append(training_table(run_dir, stages))
    return "\n\n".join([*parts, markdown(results)])
