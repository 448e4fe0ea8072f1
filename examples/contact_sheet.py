"""Show clips as rows of one image, with frames from first to last, or side by side in a moving picture.

python examples/contact_sheet.py clips/*.mp4 --output sheet.jpg
python examples/contact_sheet.py before.mp4 after.mp4 --moving --height 160 --output pair.webp
"""

import argparse
from pathlib import Path

import cv2
import numpy as np

from pipeline_landscape_video.video_io import read_video, write_video


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


def side_by_side(clips: list[np.ndarray], height: int) -> list[np.ndarray]:
    """Join clips of one number of frames, as in `contact_sheet`, to uint8 frames `(height, width, 3)` in one row."""
    frames = [np.concatenate(row, axis=1) for row in zip(*clips, strict=True)]
    width = round(frames[0].shape[1] * height / frames[0].shape[0])
    return [cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA) for frame in frames]


def main() -> None:
    """Read the clips, join their frames and write the image."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="+", type=Path, help="videos of equal size")
    parser.add_argument("--columns", type=int, default=6, help="frames per clip (default: 6)")
    parser.add_argument("--moving", action="store_true", help="let the clips play side by side (default: off)")
    parser.add_argument("--height", type=int, default=160, help="height of the moving picture (default: 160)")
    parser.add_argument(
        "--output", type=Path, required=True, help="file to write: .jpg or .png; if moving, .gif or .webp"
    )
    args = parser.parse_args()
    clips = [read_video(path) for path in args.clips]
    if args.moving:
        write_video(args.output, side_by_side([clip.frames for clip in clips], args.height), clips[0].fps)
        return
    sheet = contact_sheet([clip.frames for clip in clips], args.columns)
    if not cv2.imwrite(str(args.output), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR)):
        raise SystemExit(f"{args.output}: cannot be written.")


if __name__ == "__main__":
    main()
