"""Measure edited clips beside their source and the true edited clip, and tabulate the figures."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np

from landscape_video.evaluation.metrics.clip_metrics import clip_temp, clip_text, frame_consistency
from landscape_video.evaluation.metrics.intervals import bootstrap, mean
from landscape_video.evaluation.metrics.motion_metrics import flow_between, measure_flow, to_gray
from landscape_video.evaluation.metrics.scene_classifier import SceneClassifier, label_index
from landscape_video.evaluation.metrics.video_features import ClipScorer
from motion_adapter.markdown import markdown_table
from shanshui.renderer.edits import Edit


FIGURES = {
    "seen": "edit seen",
    "kept": "rest kept",
    "edges": "edge correlation",
    "flow": "flow error, px",
    "psnr": "PSNR to the true edit, dB",
    "text": "CLIP score",
    "pairs": "consistency, all pairs",
    "neighbors": "consistency, neighbors",
    "flicker": "flicker",
}
MOST_PSNR = 99.0  # dB; what identical clips count as
EDGE_SIGMA = 1.0  # pixels; the width of the finest brush strokes


def measure_edit(
    frames: np.ndarray,
    source: np.ndarray,
    true: np.ndarray,
    edit: Edit,
    classifier: SceneClassifier,
    scorer: ClipScorer,
) -> dict[str, float]:
    """Measure an edited clip.

    Args:
        frames: The edited clip, uint8 (num_frames, height, width, 3), as `source` and `true`.
        source: The clip before the edit.
        true: The clip that the renderer draws for the edited scene.
        edit: Scenes and prompts of both.
        classifier: Classifier of rendered scenes.
        scorer: CLIP.

    Returns:
        `"seen"`: 1 where the classifier sees the new value of the attribute that changes. `"kept"`: share of its other
        valid attributes that it sees as they are. `"edges"`: correlation with the edges of the source. `"flow"`: mean
        distance between the optical flow and the source's, in pixels. `"psnr"`: to the true edited clip, in dB.
        `"text"`: CLIP score with the new prompt. `"pairs"` and `"neighbors"`: mean CLIP cosine of all and of
        consecutive pairs of frames. `"flicker"`: gray levels that flow does not explain.
    """
    probabilities = classifier.classify(frames)
    right = {
        name: probabilities[name].argmax() == label_index(classifier.attributes[name], getattr(edit.target, name))
        for name in classifier.valid
    }
    embeddings = scorer.frames(frames)
    return {
        "seen": float(right.pop(edit.attribute)),
        "kept": float(np.mean(list(right.values()))),
        "edges": edge_correlation(frames, source),
        "flow": flow_error(frames, source),
        "psnr": psnr(frames, true),
        "text": clip_text(embeddings, scorer.texts([edit.prompt])[0]),
        "pairs": frame_consistency(embeddings),
        "neighbors": clip_temp(embeddings),
        "flicker": measure_flow(frames).unexplained_flicker,
    }


def edge_correlation(clip: np.ndarray, other: np.ndarray) -> float:
    """Return the correlation of the strength of edges of two clips, uint8 (num_frames, height, width, 3)."""
    return float(np.corrcoef(_edges(clip).ravel(), _edges(other).ravel())[0, 1])


def _edges(clip: np.ndarray) -> np.ndarray:
    smooth = [cv2.GaussianBlur(frame.astype(np.float32), (0, 0), EDGE_SIGMA) for frame in to_gray(clip)]
    return np.stack([np.hypot(cv2.Sobel(frame, -1, 1, 0), cv2.Sobel(frame, -1, 0, 1)) for frame in smooth])


def flow_error(clip: np.ndarray, other: np.ndarray) -> float:
    """Return the mean distance between the flows of two clips from frame to frame, in pixels."""
    flows = [
        np.stack([flow_between(*pair) for pair in zip(gray, gray[1:], strict=False)])
        for gray in (to_gray(clip), to_gray(other))
    ]
    return float(np.linalg.norm(flows[0] - flows[1], axis=-1).mean())


def psnr(clip: np.ndarray, other: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio of two uint8 clips in dB, at most `MOST_PSNR`."""
    error = float(((clip.astype(np.float64) - other) ** 2).mean())
    return MOST_PSNR if error == 0 else min(MOST_PSNR, 10 * math.log10(255**2 / error))


def table(records: Sequence[dict[str, Any]], default: str, kinds: Sequence[str] = ()) -> str:
    """Make the Markdown tables: means over edits, and differences to `default` on the same edits.

    Args:
        records: Figures of each clip, with "way", "edit", "kind" and "seed".
        default: The way that the others are compared with.
        kinds: Kinds of edits to count; all of them by default.

    Returns:
        Tables with 95 % intervals over edits. The seeds of an edit are averaged first.
    """
    chosen = [record for record in records if not kinds or record["kind"] in kinds]
    ways = list(dict.fromkeys(record["way"] for record in chosen))
    by_edit = {way: dict(means_by_edit(chosen, way)) for way in ways}
    rows = []
    for way in ways:
        columns = np.array(list(by_edit[way].values())).T
        rows.append([way, f"{columns.shape[1]}", *(bootstrap(mean, column).text() for column in columns)])
    parts = [markdown_table(["way", "edits", *FIGURES.values()], rows)]
    rows = []
    for way in ways:
        shared = [edit for edit in by_edit[way] if edit in by_edit.get(default, {})]
        if way == default or not shared:
            continue
        columns = np.array([by_edit[default][edit] - by_edit[way][edit] for edit in shared]).T
        rows.append([way, f"{len(shared)}", *(bootstrap(mean, column).text() for column in columns)])
    if rows:
        parts.append(markdown_table([f"{default} minus", "edits", *FIGURES.values()], rows))
    return "\n\n".join(parts) + "\n"


def means_by_edit(records: Sequence[dict[str, Any]], way: str) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the number of each edit and its figures, (figures,), averaged over seeds."""
    of_way = [record for record in records if record["way"] == way]
    for edit in dict.fromkeys(record["edit"] for record in of_way):
        rows = [[record[name] for name in FIGURES] for record in of_way if record["edit"] == edit]
        yield edit, np.mean(rows, axis=0)
