"""Clips as rows of a picture: some frames of each, from first to last.

python examples/contact_sheet.py clips/*.mp4 --output sheet.jpg
"""

import argparse
from pathlib import Path

import cv2
import numpy as np

from pipeline_landscape_video.video_io import read_video


def contact_sheet(clips: list[np.ndarray], columns: int) -> np.ndarray:
    """One row per clip, uint8 (num_frames, height, width, 3), all of the same size; `columns` frames of each."""
    rows = [clip[np.linspace(0, len(clip) - 1, columns).round().astype(int)] for clip in clips]
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="+", type=Path, help="videos of one size")
    parser.add_argument("--columns", type=int, default=6, help="frames of each clip")
    parser.add_argument("--output", type=Path, required=True, help=".jpg or .png")
    args = parser.parse_args()
    sheet = contact_sheet([np.asarray(read_video(path).frames) for path in args.clips], args.columns)
    if not cv2.imwrite(str(args.output), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR)):
        raise SystemExit(f"{args.output}: cannot be written.")


if __name__ == "__main__":
    main()
