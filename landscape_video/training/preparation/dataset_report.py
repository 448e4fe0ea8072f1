"""Write the report of a preparation: an HTML page with a contact sheet of each clip, and the dataset's card."""

from collections import Counter
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from motion_adapter.markdown import markdown_table


# LPV-HD, as NADM describes it (Liu et al., section III-B).
LPV_HD = {
    "clips": "1298",
    "most common duration": "6 s (1088)",
    "most common resolution": "1920 x 1080 (1054)",
    "most common frame rate": "25 fps (1099)",
}
STYLE = """
body { font: 15px/1.4 sans-serif; margin: 2em; color: #222; background: #f7f4ec; }
figure { display: inline-block; margin: 0 1em 1.5em 0; padding: .6em; background: #fff; border-radius: 4px; }
figure.rejected { background: #f6e3df; }
img { display: block; max-width: 100%; height: auto; }
figcaption { max-width: 46em; margin-top: .4em; }
.reason { color: #a11; } .name { color: #777; }
"""


def write_report(path: Path, clips: list[dict[str, Any]], errors: dict[str, str]) -> None:
    """Write a page of all clips, kept and rejected, whose contact sheets are in `sheets/` beside it.

    Args:
        path: File to write.
        clips: All clips.
        errors: What is wrong with sources that could not be read, by name.
    """
    kept = [clip for clip in clips if not clip["refused"]]
    rejected = [clip for clip in clips if clip["refused"]]
    counts = Counter(reason.split(":")[0] for clip in rejected for reason in clip["refused"])
    parts = [
        f'<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>Prepared clips</title><style>{STYLE}</style>',
        f"<h1>{len(kept)} clips kept, {len(rejected)} rejected</h1>",
        "<ul>" + "".join(f"<li>{escape(reason)}: {count}</li>" for reason, count in counts.most_common()) + "</ul>",
    ]
    if errors:
        lines = (f"<li>{escape(name)}: <span class=reason>{escape(why)}</span></li>" for name, why in errors.items())
        parts.append(f"<h2>{len(errors)} videos could not be read</h2><ul>{''.join(lines)}</ul>")
    for title, chosen in (("Kept", kept), ("Rejected", rejected)):
        parts.append(f"<h2>{title}</h2>" + "".join(map(_figure, chosen)))
    path.write_text("\n".join(parts) + "</html>\n", encoding="utf-8")


def _figure(clip: dict[str, Any]) -> str:
    texts = "<br>".join(escape(text) for text in clip.get("texts", []))
    reasons = "<br>".join(escape(reason) for reason in clip["refused"])
    where = (
        f"{clip['source']}, {clip['start']:.2f} s to {clip['end']:.2f} s, "
        f"{clip['source_width']} x {clip['source_height']}, {clip['fps']:g} fps"
    )
    return (
        f'<figure class="{"rejected" if clip["refused"] else "kept"}"><img loading=lazy alt="" '
        f'src="sheets/{quote(clip["name"])}.jpg"><figcaption>{texts}<div class=reason>{reasons}</div>'
        f"<div class=name>{escape(where)}</div></figcaption></figure>"
    )


def figures(clips: list[dict[str, Any]]) -> dict[str, str]:
    """Describe clips by the figures that NADM gives for LPV-HD."""

    def commonest(values: list[str]) -> str:
        value, count = min(Counter(values).items(), key=lambda item: (-item[1], item[0]))
        return f"{value} ({count})"

    return {
        "clips": str(len(clips)),
        "most common duration": commonest([f"{round(clip['end'] - clip['start'])} s" for clip in clips]),
        "most common resolution": commonest([f"{clip['source_width']} x {clip['source_height']}" for clip in clips]),
        "most common frame rate": commonest([f"{round(clip['fps'], 2):g} fps" for clip in clips]),
    }


def write_card(path: Path, clips: list[dict[str, Any]], settings: dict[str, Any]) -> None:
    """Write the dataset's card: its figures beside those of LPV-HD, and the settings it was made with.

    Args:
        path: File to write.
        clips: Kept clips; at least one.
        settings: Settings of the preparation.
    """
    ours = figures(clips)
    num_sources = len({clip["source"] for clip in clips})
    sizes = Counter(f"{clip['width']} x {clip['height']}" for clip in clips)
    stored = ", ".join(f"{size} ({count})" for size, count in sizes.most_common(3))
    minutes = sum(clip["end"] - clip["start"] for clip in clips) / 60
    compared = markdown_table(("", "this dataset", "LPV-HD"), [(name, ours[name], LPV_HD[name]) for name in LPV_HD])
    made = markdown_table(("setting", "value"), [(f"`{name}`", value) for name, value in settings.items()])
    path.write_text(
        f"""---
task_categories:
- text-to-video
tags:
- video
- landscape-painting
configs:
- config_name: default
  data_files:
  - metadata.jsonl
  - clips/*
---

# Landscape-painting clips

{len(clips)} captioned clips of single scenes, {minutes:.1f} minutes in all, cut from {num_sources} videos by
`training/prepare_dataset.py`. `metadata.jsonl` has a line for each clip: `file_name`, `text`, `texts` (further
captions), its source and its place in it. The table shows the figures that NADM gives for LPV-HD, its dataset of
landscape-painting videos (counts in brackets; resolution and frame rate are those of the sources):

{compared}

LPV-HD was made from 210 clips of ink-wash animations and over 400 videos from YouTube, cut into single scenes and
captioned by hand. The clips here are stored at {stored}.

## How it was made

{made}

`report.html` shows every clip, kept or rejected, with the reason.

## License

The rights to the clips are those of their sources. State them here before you publish anything.
""",
        encoding="utf-8",
    )
