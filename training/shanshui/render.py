"""Render ink-landscape clips with captions: `python training/shanshui/render.py --output clips --clips 100`.

The folder gets `clip_000000.mp4`, ... and `metadata.jsonl` (VideoFolder layout). A run that was stopped goes on where
it was when it is started again, and the same seed gives the same clips, whatever the number of workers.
"""

import argparse
import sys

from shanshui.renderer.constants import FPS, LANGUAGES, SIZE
from shanshui.renderer.dataset import render_dataset, scene_of, write_video_folder
from shanshui.renderer.painting import render_clip


__all__ = ["render_clip", "render_dataset", "scene_of", "write_video_folder"]


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", required=True, help="folder to write to")
    parser.add_argument("--clips", type=int, required=True, help="number of clips")
    parser.add_argument("--frames", type=int, default=16, help="frames per clip (16)")
    parser.add_argument("--fps", type=float, default=FPS, help=f"frames per second ({FPS})")
    parser.add_argument("--size", type=int, default=SIZE, help="height and width in pixels (128)")
    parser.add_argument("--height", type=int, help="height in pixels, if it is not --size")
    parser.add_argument("--width", type=int, help="width in pixels, if it is not --size")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, help="processes (one per core); 0: none but this one")
    parser.add_argument("--language", choices=(*LANGUAGES, "both"), default="both", help="of the captions (both)")
    parser.add_argument(
        "--fine-motifs", action=argparse.BooleanOptionalAction, default=True,
        help="rain, snowfall, petals and bamboo, which a 128 x 128 model can hardly carry",
    )  # fmt: skip
    parser.add_argument(
        "--begin-anywhere", action="store_true",
        help="let no first frame tell where camera and boat go: for training what animates pictures",
    )  # fmt: skip
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    args = parse_args(arguments)
    for name in ("clips", "frames", "fps", "size"):
        if getattr(args, name) <= 0:
            sys.exit(f"--{name} has to be positive, not {getattr(args, name)}.")
    try:
        write_video_folder(
            args.output,
            args.clips,
            seed=args.seed,
            frames=args.frames,
            fps=args.fps,
            height=args.height or args.size,
            width=args.width or args.size,
            fine_motifs=args.fine_motifs,
            language=args.language,
            workers=args.workers,
            begin_anywhere=args.begin_anywhere,
        )
    except ValueError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
