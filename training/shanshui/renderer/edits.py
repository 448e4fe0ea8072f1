"""Draw clips and their edits: the same scene with another palette or light, or with one motif more or less.

Both clips share their random streams and their composition, so nothing else differs. What an edit of the first clip
should look like is therefore known exactly.
"""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count

import numpy as np

from shanshui.renderer.captions import caption
from shanshui.renderer.dataset import scene_of
from shanshui.renderer.rendering import SceneRenderer, depth_of, opacity
from shanshui.renderer.scene import CHOICES, SIZE, Scene


KINDS = ("palette", "season", "light", "added", "removed")
SEASONS, TONES = ("autumn", "snow"), ("ink", "blue_green", "dawn")  # palettes that edits of both kinds lead to
MOTIFS = ("boat", "mist", "birds", "trees", "light", "waterfall", "pavilion")
CAPTIONS = 400  # captions of the edited scene to choose from
CHOICE, WORDS = 11, 12  # streams of random numbers; clips and pairs of a scene draw from lower ones


@dataclass(frozen=True)
class Edit:
    """A clip, what it should become, and the prompts of both.

    Attributes:
        kind: One of `KINDS`.
        attribute: The attribute of `Scene` that changes.
        source: Scene of the clip.
        target: Scene of the edited clip.
        source_prompt: Caption of `source`.
        prompt: Caption of `target` in nearly the same words.
    """

    kind: str
    attribute: str
    source: Scene
    target: Scene
    source_prompt: str
    prompt: str

    @property
    def composed_like(self) -> Scene:
        """The scene with more motifs, which leaves room for them in both clips."""
        return self.target if self.kind == "added" else self.source

    def render(self, times: Sequence[float], height: int = SIZE, width: int = SIZE) -> tuple[np.ndarray, np.ndarray]:
        """Render the clip and its edit at the given seconds, uint8 (len(times), height, width, 3) each."""
        renderers = (
            SceneRenderer(scene, height, width, composed_like=self.composed_like)
            for scene in (self.source, self.target)
        )
        clips = [np.stack([renderer.frame(time) for time in times]) for renderer in renderers]
        return clips[0], clips[1]

    def render_depth(self, times: Sequence[float], height: int = SIZE, width: int = SIZE) -> np.ndarray:
        """Render the depth of the clip, float32 (len(times), height, width), see `GroundTruth`."""
        renderer = SceneRenderer(self.source, height, width, composed_like=self.composed_like)
        elements = renderer.all_elements()
        return np.stack(
            [depth_of(elements, [opacity(one, time, height, width) for one in elements], time) for time in times]
        )


def draw_edits(number: int, seed: int) -> list[Edit]:
    """Draw edits of the scenes of a data set, of all `KINDS` in turn.

    Args:
        number: Number of edits; the first ones do not depend on it.
        seed: Seed of the scenes, without fine motifs, see `scene_of`.
    """
    edits: list[Edit] = []
    for index in count():
        if len(edits) == number:
            return edits
        kind = KINDS[len(edits) % len(KINDS)]
        scene, rng = scene_of(index, seed, fine_motifs=False), np.random.default_rng((seed, index, CHOICE))
        changes = list(changes_of(scene, kind))
        if changes:  # else this scene has nothing of the kind to change
            attribute, value = changes[rng.integers(len(changes))]
            target = replace(scene, **{attribute: value})
            edits.append(Edit(kind, attribute, scene, target, *prompts_of(scene, target, (seed, index, WORDS))))


def changes_of(scene: Scene, kind: str) -> Iterator[tuple[str, str | bool]]:
    """Yield each change of a kind that `scene` allows: an attribute and its new value."""
    if kind in ("palette", "season"):
        values = SEASONS if kind == "season" else TONES
        yield from (("palette", value) for value in values if value != scene.palette)
    elif kind == "light":
        other = {"none": (), "sun": ("moon",), "moon": ("sun",)}[scene.light]
        yield from (("light", value) for value in other)
    elif kind == "removed":
        yield from ((name, CHOICES[name][0]) for name in MOTIFS if getattr(scene, name) != CHOICES[name][0])
    else:
        absent = [name for name in MOTIFS if getattr(scene, name) == CHOICES[name][0]]
        for name in absent:
            if name == "boat" and scene.water == "none":
                continue
            values = ("pines",) if name == "trees" else CHOICES[name][1:]  # bamboo is too fine for small images
            yield from ((name, value) for value in values)


def prompts_of(source: Scene, target: Scene, seed: Sequence[int]) -> tuple[str, str]:
    """Return a caption of each scene; the second has as many words of the first as a person would keep."""
    before = caption(source, np.random.default_rng(seed))
    seeds = [seed, *((*seed, number) for number in range(CAPTIONS))]  # the same one often gives the same words
    drawn = [caption(target, np.random.default_rng(one)) for one in seeds]
    return before, max(drawn, key=lambda text: difflib.SequenceMatcher(None, before.split(), text.split()).ratio())
