"""Do negative prompt, guidance scale, seed and length of a clip do what they are there for?

Each figure is zero, or the check fails, if the pipeline ignores the argument.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from landscape_video.evaluation.metrics.intervals import Interval, bootstrap, mean, ratio_of_means
from shanshui.measuring.clip_figures import Truth, agreement, answers, judge
from shanshui.measuring.measured_clips import ClipMaker, Request, Variant
from shanshui.measuring.scene_classifiers import MOTIFS, SceneClassifier, classify_clips
from shanshui.renderer.captions import caption
from shanshui.renderer.constants import LANGUAGES
from shanshui.renderer.rendering import render_clip
from shanshui.renderer.scene import ATTRIBUTES, Scene


MIDDLE_SECOND = 1.0
SHORT = 8  # frames; half the work, so all but the check of the length itself are done on such clips


@dataclass(frozen=True)
class Control:
    """One check: what it says, its figure and whether that is as it should be, None where nothing is wanted."""

    name: str
    figure: Interval
    wanted: str
    passed: bool | None


class ControlChecks:
    """The checks for one way to call the pipeline, `variant`.

    `variant.num_frames` is compared with `SHORT` frames, all else with clips of `SHORT` frames that differ in the one
    argument.
    """

    def __init__(
        self, maker: ClipMaker, classifier: SceneClassifier, valid: Collection[str], variant: Variant
    ) -> None:
        self.maker, self.classifier, self.valid, self.variant = maker, classifier, valid, variant
        self.short = replace(variant, num_frames=SHORT)

    def run(self, scenes: Sequence[Scene], requests: Sequence[Request], language: str) -> list[Control]:
        """All checks on some scenes."""
        clips = self.maker.clips(requests, self.short)
        truth = Truth.of(scenes)
        return [
            *self.check_negative(scenes, requests, clips, language),
            *self.check_guidance(truth, requests, clips),
            *self.check_seed(scenes, requests, clips),
            *self.check_length(truth, requests, clips),
        ]

    def check_negative(
        self, scenes: Sequence[Scene], requests: Sequence[Request], clips: Sequence[np.ndarray], language: str
    ) -> list[Control]:
        """Name a motif that the prompt asks for in the negative prompt as well: it should be there less often."""
        rows, motifs, negated = [], [], []
        for row, (scene, request) in enumerate(zip(scenes, requests, strict=True)):
            present = [name for name in MOTIFS if name in self.valid and getattr(scene, name) not in ("none", False)]
            if present:
                rng = np.random.default_rng((scene.seed, LANGUAGES.index(language)))
                motif = present[rng.integers(len(present))]
                rows.append(row)
                motifs.append(motif)
                negated.append(replace(request, negative_prompt=motif_caption(scene, motif, rng, language)))
        if not rows:
            return []
        before = classify_clips(self.classifier, [clips[row] for row in rows])
        after = classify_clips(self.classifier, self.maker.clips(negated, self.short))
        changes = [before[motif][k, 0] - after[motif][k, 0] for k, motif in enumerate(motifs)]
        drop = bootstrap(mean, np.array(changes))
        name = "probability of a motif, with minus without it in the negative prompt"
        return [Control(name, drop, "<= -0.05, interval below 0", drop.value <= -0.05 and drop.high < 0)]

    def check_guidance(self, truth: Truth, requests: Sequence[Request], clips: Sequence[np.ndarray]) -> list[Control]:
        """Guidance should bring the clip closer to the prompt than none: what it shows, and where its camera goes."""
        unguided = self.maker.clips(requests, replace(self.short, guidance_scale=1.0))
        with_it, without = (judge(some, self.classifier) for some in (clips, unguided))
        gains = {
            name: bootstrap(mean, measure(with_it) - measure(without))
            for name, measure in (
                ("agreement with the prompt", lambda seen: agreement(seen.probabilities, truth, self.valid)),
                ("camera as asked", lambda seen: (seen.cameras == truth.cameras).astype(float)),
            )
        }
        scales = f"guidance {self.variant.guidance_scale:g} minus guidance 1"
        return [Control(f"{name}, {scales}", gain, "interval above 0", gain.low > 0) for name, gain in gains.items()]

    def check_seed(
        self, scenes: Sequence[Scene], requests: Sequence[Request], clips: Sequence[np.ndarray]
    ) -> list[Control]:
        """Another seed should compose afresh, the same one should repeat itself."""
        others = self.maker.clips(requests, replace(self.short, noise=self.short.noise + 1))
        change = seed_change(scenes, clips, others)
        # Not from the store: what is there may have been made in other batches, by other threads.
        once, again = (self.maker.make(requests[:1], self.short) for _ in range(2))
        same = bootstrap(mean, np.array([float(np.array_equal(*pair)) for pair in zip(once, again, strict=True)]))
        return [
            Control("change by another seed, times rendered", change, ">= 0.5", change.value >= 0.5),
            Control("clips that the same seed makes again, bit for bit", same, "1", same.value == 1),
        ]

    def check_length(self, truth: Truth, requests: Sequence[Request], short: Sequence[np.ndarray]) -> list[Control]:
        """The whole length should answer the prompt as well as half of it does."""
        clips = self.maker.clips(requests, self.variant)
        whole, half = (answers(judge(some, self.classifier), truth, self.valid) for some in (clips, short))
        controls = []
        for name in whole:
            gain = bootstrap(mean, whole[name] - half[name])
            passed = gain.value >= -0.1 and gain.high >= 0
            name = f"{name} right, {self.variant.num_frames} frames minus {SHORT}"
            controls.append(Control(name, gain, ">= -0.1, interval reaches 0", passed))
        return controls


def motif_caption(scene: Scene, motif: str, rng: np.random.Generator, language: str) -> str:
    """A text that names one motif of a scene and nothing else."""
    return caption(scene, rng, language, unsaid=[name for name in ATTRIBUTES if name != motif])


def seed_change(scenes: Sequence[Scene], clips: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> Interval:
    """How much another seed changes the composition, against what it changes in rendered scenes of the same words."""
    made, rendered = [], []
    for scene, clip, other in zip(scenes, clips, others, strict=True):
        made.append(composition_distance(clip[len(clip) // 2], other[len(other) // 2]))
        pair = [
            render_clip(replace(scene, seed=seed), [MIDDLE_SECOND], *clip.shape[1:3])[0]
            for seed in (scene.seed, scene.seed + 1)
        ]
        rendered.append(composition_distance(*pair))
    return bootstrap(ratio_of_means, np.array(made), np.array(rendered))


def composition_distance(frame: np.ndarray, other: np.ndarray) -> float:
    """Root mean square difference of grey levels of two frames seen at 16 x 16."""
    small = [
        cv2.resize(cv2.cvtColor(one, cv2.COLOR_RGB2GRAY), (16, 16), interpolation=cv2.INTER_AREA).astype(float)
        for one in (frame, other)
    ]
    return float(np.sqrt(np.mean((small[0] - small[1]) ** 2)))
