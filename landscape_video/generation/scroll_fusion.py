"""Keep still what stands still along a handscroll, and keep its colors together, in predicted clean latents.

Strips are the latents of frames along a `CameraPath`, (num_frames, strip, channels, height).
"""

import torch
import torch.nn.functional as F

from landscape_video.generation.camera_path import CameraPath
from pipeline_landscape_video.landscape_color_anchor import color_shift


def still_picture(strips: torch.Tensor, path: CameraPath) -> torch.Tensor:
    """Return the median over all frames that see it of each place of the canvas, (canvas, channels, height).

    Unlike a mean, it shows no ghosts of what passes.
    """
    firsts = path.firsts
    columns = []
    for column in range(path.canvas):
        frames = path.frames_of(column)
        columns.append(strips[frames, column - firsts[frames]].median(dim=0).values)
    return torch.stack(columns)


def hold_still(strips: torch.Tensor, path: CameraPath, threshold: float) -> torch.Tensor:
    """Consistency tuning Eq. 11 without masks: give what stands still the same latents in all frames.

    The paper averages the background in a mask. Here, the background is what deviates little from the median over
    time. A deviation d shrinks to max(0, 1 - threshold^2 / d^2) d, the positive-part rule of James and Stein, with d^2
    as the mean over channels and 3 x 3 places. Flicker vanishes, and what moves stays as it is.

    Args:
        strips: Predicted clean latents.
        path: Way of the camera.
        threshold: Root mean square deviation that counts as flicker, in units of the latents.
    """
    picture = still_picture(strips, path)[path.columns()]
    deviation = strips - picture
    power = F.avg_pool2d(deviation.square().mean(dim=2)[:, None], 3, stride=1, padding=1, count_include_pad=False)
    gain = (1 - threshold**2 / power.clamp(min=1e-12)).clamp(min=0)
    return picture + gain[:, 0, :, None] * deviation


def picture_of(strips: torch.Tensor, path: CameraPath) -> torch.Tensor:
    """Return the latents of the whole scroll, (channels, height, canvas): each column when the camera faces it."""
    columns = range(path.canvas)
    frames = [path.frame_at(column) for column in columns]
    return torch.stack([strips[f, c - path.first(f)] for f, c in zip(frames, columns, strict=True)], dim=2)


def shift_colors(strips: torch.Tensor, path: CameraPath, shares: torch.Tensor) -> torch.Tensor:
    """Give the same mean color to all parts of the canvas that show the same prompt.

    Args:
        strips: Predicted clean latents.
        path: Way of the camera.
        shares: Share of each prompt in each column of the canvas, (canvas, prompts).
    """
    columns = path.columns()
    sums = strips.new_zeros(path.canvas, strips.shape[2])
    sums.index_put_((columns,), strips.mean(dim=3), accumulate=True)
    means = sums / torch.bincount(columns.flatten(), minlength=path.canvas)[:, None].to(sums)
    width = path.view // 4 * 2 + 1  # half a view
    padded = F.pad(means.T[None], (width // 2, width // 2), mode="replicate")
    smooth = F.avg_pool1d(padded, width, stride=1)[0].T
    return strips + color_shift(smooth, shares.to(smooth))[columns][..., None]
