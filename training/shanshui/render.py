"""Render ink-landscape clips with captions: `python training/shanshui/render.py --output clips --clips 100`.

The folder receives `clip_000000.mp4`, ... and `metadata.jsonl` (VideoFolder layout). The same command resumes a run
that was stopped. The same seed gives the same clips, whatever the number of workers. With --flow, --masks and --depth,
what the renderer knows of a clip is written to `clip_000000.npz`, ... in folders of these names; the arrays are those
of `shanshui.renderer.rendering.GroundTruth`.
"""

import argparse
import sys

from shanshui.renderer.dataset import GROUND_TRUTH, write_video_folder
from shanshui.renderer.scene import FPS, LANGUAGES, SIZE


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--output", required=True, help="folder to write to (required)")
    add("--clips", type=int, required=True, help="number of clips (required)")
    add("--frames", type=int, default=16, help="frames per clip (default: %(default)s)")
    add("--fps", type=float, default=FPS, help="frames per second (default: %(default)s)")
    add("--size", type=int, default=SIZE, help="height and width in pixels (default: %(default)s)")
    add("--height", type=int, help="height in pixels (default: --size)")
    add("--width", type=int, help="width in pixels (default: --size)")
    add("--seed", type=int, default=0, help="seed of the scenes and captions (default: %(default)s)")
    add("--workers", type=int, help="processes; 0 renders in this one (default: one per core)")
    languages = (*LANGUAGES, "both")
    add("--language", choices=languages, default="both", help="language of the captions (default: %(default)s)")
    add(
        "--fine-motifs", action=argparse.BooleanOptionalAction, default=True,
        help="draw rain, snowfall, petals and bamboo, too fine for a model of 128 x 128 pixels (default: on)",
    )  # fmt: skip
    add(
        "--begin-anywhere", action="store_true",
        help="let no first frame reveal where camera and boat go, to train models that animate images (default: off)",
    )  # fmt: skip
    add("--flow", action="store_true", help="also write exact optical flow between frames to flow/ (default: off)")
    add("--masks", action="store_true", help="also write masks of everything in the scene to masks/ (default: off)")
    add("--depth", action="store_true", help="also write exact depth maps to depth/ (default: off)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    args = parse_args(arguments)
    for name in ("clips", "frames", "fps", "size"):
        if getattr(args, name) <= 0:
            sys.exit(f"--{name} must be positive, got {getattr(args, name)}.")
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
            ground_truth=[kind for kind in GROUND_TRUTH if getattr(args, kind)],
        )
    except ValueError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
