"""Which clips a report shows, and one sentence for everything that it does not."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path

from landscape_video.evaluation.report.page_clips import PageClip, embed_clip
from landscape_video.evaluation.report.page_tables import number
from landscape_video.evaluation.results import ClipResult, Results, System, read_results


MAX_LONE = 8  # of clips that nothing is compared with, such as those of a reference folder, per system
WITHOUT_PROMPT = "Clips without a prompt"
_AROUND_A_CLIP = 1200  # bytes of HTML, names and prompts not counted
_NAMINGS = 8  # how often a card holds its names, at most


@dataclass(frozen=True)
class Source:
    """Results with the folder that the paths of their clips start from, and the name of the file."""

    results: Results
    folder: Path
    name: str


@dataclass(frozen=True)
class Figure:
    """A clip on the page: of which system, with which seed and numbers, and the embedded clip itself."""

    system: str
    seed: int | None
    numbers: str
    clip: PageClip


@dataclass
class Gallery:
    """What is shown by prompt, and one sentence for everything that is not."""

    prompts: list[tuple[str, list[Figure]]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def read_source(path: str | Path) -> Source:
    """A results file, or the one in a folder. Raises as `read_results`."""
    path = Path(path)
    results = read_results(path)
    folder = path if path.is_dir() else path.parent
    return Source(
        results, folder, folder.absolute().name if path.is_dir() else f"{folder.absolute().name}/{path.name}"
    )


def unique_systems(sources: Sequence[Source]) -> list[tuple[System, Source]]:
    """All systems under names of their own; one that stands in several files with the same numbers counts once."""
    found: dict[str, tuple[System, Source]] = {}
    seen: list[tuple] = []
    for source in sources:
        for system in source.results.systems:
            measured = (system.name, system.kind, system.metrics)
            if measured in seen:
                continue
            seen.append(measured)
            name, count = system.name, 1
            while name in found:
                name = f"{system.name} ({source.name})" if count == 1 else f"{system.name} ({source.name}, {count})"
                count += 1
            found[name] = (replace(system, name=name), source)
    return list(found.values())


def make_gallery(
    systems: Sequence[tuple[System, Source]],
    max_bytes: int,
    clip_width: int,
    clips_per_prompt: int,
    progress: Callable[[Sequence], Iterator] = iter,
) -> Gallery:
    """Embed clips prompt by prompt, always those of all systems, while they fit."""
    gallery = Gallery()
    prompts: dict[str, list[tuple[System, Source, ClipResult]]] = {}
    for system, source in systems:
        taken: dict[str, int] = {}
        for clip in system.clips:
            prompt = clip.prompt or WITHOUT_PROMPT
            taken[prompt] = taken.get(prompt, 0) + 1
            if taken[prompt] <= (clips_per_prompt if clip.prompt else MAX_LONE):
                prompts.setdefault(prompt, []).append((system, source, clip))
        if taken.get(WITHOUT_PROMPT, 0) > MAX_LONE:
            gallery.left_out.append(
                f"{MAX_LONE} of the {taken[WITHOUT_PROMPT]} clips of {system.name} that have no prompt are shown."
            )
    if not any(system.clips for system, _ in systems):
        return gallery
    if not clips_per_prompt:
        return Gallery(left_out=["The clips were left out."])
    prompts = _without_most_lone(prompts, gallery) if len(systems) > 1 else prompts
    for members in prompts.values():  # all of them, before minutes of encoding
        for system, source, clip in members:
            if not (source.folder / clip.file).is_file():
                raise FileNotFoundError(
                    f"{source.folder / clip.file}: there is no such file, but {source.name} names it as a clip of "
                    f"{system.name}; a page without clips needs none."
                )
    # What most systems have comes first: there is something to compare. The order is kept otherwise.
    order = sorted(
        prompts, key=lambda prompt: (prompt == WITHOUT_PROMPT, -len({system.name for system, _, _ in prompts[prompt]}))
    )
    used = 0
    for prompt in progress(order):
        figures = [_figure(system, source, clip, clip_width) for system, source, clip in prompts[prompt]]
        names = sum(len(escape(f"{prompt}{figure.system}{figure.numbers}").encode()) for figure in figures)
        used += sum(figure.clip.size + _AROUND_A_CLIP for figure in figures) + _NAMINGS * names
        if used > max_bytes:
            break
        gallery.prompts.append((prompt, figures))
    _say_what_is_left_out(gallery, len(prompts), systems, clips_per_prompt)
    return gallery


def _without_most_lone(prompts: dict[str, list], gallery: Gallery) -> dict[str, list]:
    """Nothing stands beside the clips of a prompt that only one system has: a few of them are enough."""
    lone: dict[str, list[str]] = {}
    for prompt, members in prompts.items():
        if len({system.name for system, _, _ in members}) == 1:
            lone.setdefault(members[0][0].name, []).append(prompt)
    for name, its_prompts in lone.items():
        if len(its_prompts) > MAX_LONE:
            gallery.left_out.append(f"{MAX_LONE} of the {len(its_prompts)} clips that {name} alone has are shown.")
            prompts = {prompt: members for prompt, members in prompts.items() if prompt not in its_prompts[MAX_LONE:]}
    return prompts


def _say_what_is_left_out(
    gallery: Gallery, num_prompts: int, systems: Sequence[tuple[System, Source]], clips_per_prompt: int
) -> None:
    if len(gallery.prompts) < num_prompts:
        gallery.left_out.append(
            f"{len(gallery.prompts)} of {num_prompts} prompts are shown: with the clips of the next one the page "
            "would have grown beyond its limit."
        )
    made = [[clip.prompt for clip in system.clips if clip.prompt] for system, _ in systems]
    if any(len(prompts) > clips_per_prompt * len(set(prompts)) for prompts in made):
        first = "the first clip is" if clips_per_prompt == 1 else f"the first {clips_per_prompt} clips are"
        gallery.left_out.append(f"Of several clips that a system made of one prompt, {first} shown, not the best.")
    if any(figure.clip.is_cut for _, figures in gallery.prompts for figure in figures):
        gallery.left_out.append("Long clips are cut to their beginning; their captions say so.")


def _figure(system: System, source: Source, clip: ClipResult, width: int) -> Figure:
    # Whose weights a number is of stands in the table; under a clip there is little room.
    short = {label: label.partition("[")[0].strip() for label in clip.metrics}
    names = short if len(set(short.values())) == len(short) else {label: label for label in short}
    numbers = [f"{names[label]} {number(value, 2)}" for label, value in clip.metrics.items() if value is not None]
    return Figure(system.name, clip.seed, " · ".join(numbers), embed_clip(source.folder / clip.file, width))
