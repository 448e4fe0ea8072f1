"""Check that negative prompt, guidance scale, seed and length of a clip have their intended effects.

A pipeline that ignores an argument fails its check, because the value is 0 then.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from landscape_video.evaluation.metrics.intervals import Interval, bootstrap, mean, ratio_of_means
from landscape_video.evaluation.metrics.scene_classifier import SceneClassifier
from shanshui.measuring.measured_clips import ClipMaker, Request, Variant
from shanshui.measuring.predictions import Labels, agreement, answers, classify_clips, predict
from shanshui.renderer.captions import caption
from shanshui.renderer.rendering import render_clip
from shanshui.renderer.scene import ATTRIBUTES, LANGUAGES, Scene


MIDDLE_SECOND = 1.0
SHORT = 8  # frames: half the work, so everything but the check of the length itself uses such clips


@dataclass(frozen=True)
class ArgumentCheck:
    """One check.

    Args:
        name: What is measured.
        figure: The value with its interval.
        wanted: What the value should be, in words; "" where nothing is wanted.
        passed: Whether it is so; None where nothing is wanted, or where it cannot be judged.
    """

    name: str
    figure: Interval
    wanted: str = ""
    passed: bool | None = None

    @property
    def verdict(self) -> str:
        """The cell of a table."""
        return {True: "yes", False: "**no**", None: "not judged" if self.wanted else ""}[self.passed]


class ArgumentChecks:
    """The checks for one way to call the pipeline.

    The length of `variant` is compared with `SHORT` frames. All other checks compare clips of `SHORT` frames that
    differ in one argument.
    """

    def __init__(self, maker: ClipMaker, classifier: SceneClassifier, variant: Variant) -> None:
        self.maker, self.classifier, self.variant = maker, classifier, variant
        self.short = variant.changed(num_frames=SHORT)

    def run(self, scenes: Sequence[Scene], requests: Sequence[Request], language: str) -> list[ArgumentCheck]:
        """Run all checks on some scenes."""
        clips = self.maker.clips(requests, self.short)
        labels = Labels.of(scenes)
        return [
            *self.check_negative(scenes, requests, clips, language),
            *self.check_guidance(labels, requests, clips),
            *self.check_seed(scenes, requests, clips),
            *self.check_length(labels, requests, clips),
        ]

    def check_negative(
        self, scenes: Sequence[Scene], requests: Sequence[Request], clips: Sequence[np.ndarray], language: str
    ) -> list[ArgumentCheck]:
        """Name a motif of the prompt in the negative prompt as well: it should appear less often."""
        rows, motifs, negated = [], [], []
        for row, (scene, request) in enumerate(zip(scenes, requests, strict=True)):
            present = [name for name in self.classifier.motifs if getattr(scene, name) not in ("none", False)]
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
        name = "motif probability, with the motif in the negative prompt minus without"
        passed = drop.value <= -0.05 and drop.high < 0
        return [ArgumentCheck(name, drop, "<= -0.05, interval below 0", passed)]

    def check_guidance(
        self, labels: Labels, requests: Sequence[Request], clips: Sequence[np.ndarray]
    ) -> list[ArgumentCheck]:
        """Guidance should bring the clip closer to the prompt: what it shows, and where its camera goes."""
        unguided = self.maker.clips(requests, self.short.changed(guidance_scale=1.0))
        guided, unguided = (predict(some, self.classifier) for some in (clips, unguided))
        gains = {}
        if self.classifier.valid:
            gains["agreement with the prompt"] = agreement(guided, labels) - agreement(unguided, labels)
        right, by_chance = ((seen.cameras == labels.cameras).astype(float) for seen in (guided, unguided))
        gains["camera follows the prompt"] = right - by_chance
        checks = []
        for name, gain in gains.items():
            figure = bootstrap(mean, gain)
            name = f"{name}, guidance {self.variant.settings.guidance_scale:g} minus guidance 1"
            checks.append(ArgumentCheck(name, figure, "interval above 0", figure.low > 0))
        return checks

    def check_seed(
        self, scenes: Sequence[Scene], requests: Sequence[Request], clips: Sequence[np.ndarray]
    ) -> list[ArgumentCheck]:
        """Another seed should give another composition, and the same one the same clip."""
        others = self.maker.clips(requests, replace(self.short, noise=self.short.noise + 1))
        change = seed_change(scenes, clips, others)
        # Stored clips may have been made in other batches or with other numbers of threads, so both are made here.
        once, again = (self.maker.make(requests[:1], self.short) for _ in range(2))
        same = bootstrap(mean, np.array([float(np.array_equal(*pair)) for pair in zip(once, again, strict=True)]))
        return [
            ArgumentCheck("change by another seed, relative to rendered", change, ">= 0.5", change.value >= 0.5),
            ArgumentCheck("clips that the same seed reproduces, bit for bit", same, "1", same.value == 1),
        ]

    def check_length(
        self, labels: Labels, requests: Sequence[Request], short: Sequence[np.ndarray]
    ) -> list[ArgumentCheck]:
        """The whole length should answer the prompt as well as half of it does."""
        clips = self.maker.clips(requests, self.variant)
        whole, half = (answers(predict(some, self.classifier), labels) for some in (clips, short))
        checks = []
        for name in whole:
            gain = bootstrap(mean, whole[name] - half[name])
            passed = gain.value >= -0.1 and gain.high >= 0
            name = f"accuracy of {name}, {self.variant.settings.num_frames} frames minus {SHORT}"
            checks.append(ArgumentCheck(name, gain, ">= -0.1, interval reaches 0", passed))
        return checks


def motif_caption(scene: Scene, motif: str, rng: np.random.Generator, language: str) -> str:
    """A caption that names one motif of a scene and nothing else."""
    return caption(scene, rng, language, unsaid=[name for name in ATTRIBUTES if name != motif])


def seed_change(scenes: Sequence[Scene], clips: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> Interval:
    """Change of the composition by another seed, relative to that of rendered scenes with the same caption."""
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
    """Root mean square difference of the gray levels of two frames at 16 x 16 pixels."""
    small = [
        cv2.resize(cv2.cvtColor(one, cv2.COLOR_RGB2GRAY), (16, 16), interpolation=cv2.INTER_AREA).astype(float)
        for one in (frame, other)
    ]
    return float(np.sqrt(np.mean((small[0] - small[1]) ** 2)))
