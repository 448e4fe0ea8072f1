"""Count missed and false cuts: `python benchmarks/scene_cuts.py` writes `results/scene_cuts.md`.

Rendered scenes are joined to five films of 57 scenes, one for each look, and shown once per picture and on threes.
Clips of a shaking camera and clips with a flash of one frame have no cut. The detector is compared with its rule of
change alone, without repeats, shifts and flashes, and with PySceneDetect's adaptive detector where that is installed
(`pip install scenedetect`). The detector was tuned on other seeds.
"""

import platform
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from landscape_video.files import write_text
from landscape_video.scene_cuts import SceneDetector
from motion_adapter.markdown import markdown_table
from pipeline_landscape_video.repeated_frames import shrink
from result_pages import parse_output
from shanshui.renderer.rendering import render_clip
from shanshui.renderer.scene import sample_scene


SEED = 2_000
FPS = 24
SIZE = (96, 160)
SCENES = 57  # of each film
CLIPS = 40  # with a shaking camera, and with a flash
LOOKS = {
    "plain": lambda frames, rng: frames,
    "grain": lambda frames, rng: frames + rng.normal(0, 8, frames.shape),
    "gray": lambda frames, rng: frames.mean(axis=-1, keepdims=True).repeat(3, axis=-1),
    "dark": lambda frames, rng: 0.3 * frames,
    "faint": lambda frames, rng: 150 + 0.3 * (frames - frames.mean()),
}


def scene_clip(rng: np.random.Generator, num_frames: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Render a scene, (num_frames, height, width, 3) float32 in levels of 255."""
    times = np.arange(num_frames) / FPS + rng.uniform(0, 2)
    return np.asarray(render_clip(sample_scene(rng), times, *size)).astype(np.float32)


def film(look: str, rng: np.random.Generator) -> tuple[np.ndarray, set[int]]:
    """Join scenes of 4 to 16 frames. Returns the frames, and those that follow a cut."""
    scenes = [LOOKS[look](scene_clip(rng, int(rng.integers(4, 17))), rng) for _ in range(SCENES)]
    cuts = np.cumsum([len(scene) for scene in scenes])[:-1]
    return to_pixels(np.concatenate(scenes)), set(cuts.tolist())


def shaking_clip(rng: np.random.Generator) -> np.ndarray:
    """Render a scene through a camera that three vibrations of 1 to 6 Hz shake by up to 18 pixels each way."""
    amplitude, phase, rate = (rng.uniform(*limits, (3, 2)) for limits in ((1, 6), (0, 2 * np.pi), (1, 6)))
    height, width = SIZE
    shaken = []
    for number, frame in enumerate(scene_clip(rng, 48, (3 * height // 2, 3 * width // 2))):
        x, y = (amplitude * np.sin(2 * np.pi * rate * number / FPS + phase)).sum(axis=0)
        angle = rng.normal(0, 0.01)
        rows = [[np.cos(angle), -np.sin(angle), x - width / 4], [np.sin(angle), np.cos(angle), y - height / 4]]
        shaken.append(cv2.warpAffine(frame, np.float32(rows), (width, height), borderMode=cv2.BORDER_REFLECT))
    return to_pixels(np.stack(shaken))


def flash_clip(rng: np.random.Generator) -> np.ndarray:
    """Render a scene in which one frame is brighter, up to white."""
    frames = scene_clip(rng, 24)
    lit = rng.integers(4, 20)
    frames[lit] = frames[lit] * rng.uniform(1, 1.6) + rng.uniform(20, 200)
    return to_pixels(frames)


def to_pixels(frames: np.ndarray) -> np.ndarray:
    return frames.clip(0, 255).round().astype(np.uint8)


def ours(frames: np.ndarray) -> set[int]:
    """The detector of the product."""
    detector = SceneDetector()
    for frame in frames:
        detector.add(frame)
    return set(detector.find_scenes(FPS)[1:])


def change_alone(frames: np.ndarray) -> set[int]:
    """At least 8 levels, and 3 times the median of the two changes before and the two after."""
    small = [shrink(frame, 32).astype(np.float32) for frame in frames]
    changes = np.array([0.0, *(np.abs(a - b).mean() for a, b in zip(small, small[1:], strict=False))])
    padded = np.pad(changes, 2)
    usual = np.median([np.roll(padded, shift)[2:-2] for shift in (-2, -1, 1, 2)], axis=0)
    return set(np.flatnonzero((changes >= 8) & (changes >= 3 * usual)).tolist())


def scenedetect_adaptive(frames: np.ndarray) -> set[int]:
    """PySceneDetect's adaptive detector with its defaults, but scenes of any length."""
    from scenedetect import AdaptiveDetector, FrameTimecode

    detector = AdaptiveDetector(min_scene_len=1)
    found = []
    for number, frame in enumerate(frames):
        found += detector.process_frame(FrameTimecode(number, float(FPS)), np.ascontiguousarray(frame[..., ::-1]))
    return {cut.frame_num for cut in found}


def detectors() -> dict[str, Callable[[np.ndarray], set[int]]]:
    """All detectors by their names in the table."""
    found = {"ours": ours, "change alone (before)": change_alone}
    try:
        import scenedetect
    except ImportError:
        return found
    return found | {f"PySceneDetect {scenedetect.__version__}, adaptive": scenedetect_adaptive}


def main() -> None:
    output = parse_output(__doc__, "scene_cuts.md")
    rng = np.random.default_rng(SEED)
    films = {look: film(look, rng) for look in tqdm(LOOKS, desc="Films")}
    others = {
        "shaking": [shaking_clip(rng) for _ in tqdm(range(CLIPS), desc="Shaking camera")],
        "flash": [flash_clip(rng) for _ in tqdm(range(CLIPS), desc="Flashes")],
    }
    rows = []
    for name, detect in detectors().items():
        missed, false, on_threes = {}, 0, [0, 0]
        for look, (frames, cuts) in films.items():
            found = detect(frames)
            missed[look], false = len(cuts - found), false + len(found - cuts)
            held, cuts = detect(frames.repeat(3, axis=0)), {3 * cut for cut in cuts}
            on_threes = [on_threes[0] + len(cuts - held), on_threes[1] + len(held - cuts)]
        wrong = [sum(len(detect(clip)) for clip in clips) for clips in others.values()]
        counts = [*missed.values(), sum(missed.values()), false, *on_threes, *wrong]
        rows.append([name, *map(str, counts)])
    num_cuts = len(LOOKS) * (SCENES - 1)
    heads = ["detector", *(f"missed: {look}" for look in LOOKS), f"missed of {num_cuts}", "false"]
    heads += ["on threes: missed", "on threes: false", f"false in {CLIPS} shaking clips", f"false in {CLIPS} flashes"]
    setup = f"Seed {SEED}, {SIZE[1]} x {SIZE[0]} pixels, {platform.machine()} CPU, OpenCV {cv2.__version__}, NumPy"
    text = f"# Scene cuts\n\n{setup} {np.__version__}, `{Path(__file__).name}`.\n\n{markdown_table(heads, rows)}\n"
    write_text(output, text)


if __name__ == "__main__":
    main()
