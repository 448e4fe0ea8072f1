"""Show clips as rows of one image, with frames from first to last.

python examples/contact_sheet.py clips/*.mp4 --output sheet.jpg
"""

import argparse
from pathlib import Path

import cv2
import numpy as np

from pipeline_landscape_video.video_io import read_video


def contact_sheet(clips: list[np.ndarray], columns: int) -> np.ndarray:
    """Join evenly spaced frames of clips, one row per clip.

    Args:
        clips: Arrays of uint8 `(num_frames, height, width, 3)`, all of one height and width.
        columns: Number of frames per clip.

    Returns:
        uint8 `(len(clips) * height, columns * width, 3)`.
    """
    rows = [clip[np.linspace(0, len(clip) - 1, columns).round().astype(int)] for clip in clips]
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows])


def main() -> None:
    """Read the clips, join their frames and write the image."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="+", type=Path, help="videos of equal size")
    parser.add_argument("--columns", type=int, default=6, help="frames per clip (default: 6)")
    parser.add_argument("--output", type=Path, required=True, help="image to write, .jpg or .png")
    args = parser.parse_args()
    sheet = contact_sheet([read_video(path).frames for path in args.clips], args.columns)
    if not cv2.imwrite(str(args.output), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR)):
        raise SystemExit(f"{args.output}: cannot be written.")


if __name__ == "__main__":
    main()
