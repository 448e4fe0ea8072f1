"""The way of a camera along a handscroll, and which part of the scroll's latents each frame has."""

from dataclasses import dataclass

import torch


MARGIN = 2  # latent columns that a frame has beyond each side of its view: decoders look at neighbors


@dataclass(frozen=True)
class CameraPath:
    """An even pan from the left end of a canvas to its right end.

    The latents of a frame are a strip of the canvas: the columns that the camera sees, and a margin. They keep their
    place on the canvas while the camera moves, so what stands still has the same latents in all frames that see it.

    Args:
        canvas: Width of the canvas in latent columns.
        view: Width of the camera's view in latent columns.
        num_frames: Number of frames.
        unit: Pixels per latent column.

    Raises:
        ValueError: The view is wider than the canvas, or the camera would leave a strip between two frames.
    """

    canvas: int
    view: int
    num_frames: int
    unit: int = 8

    def __post_init__(self) -> None:
        if self.view > self.canvas:
            raise ValueError(f"`length` must be at least 1 screen, got {self.canvas / self.view:g}.")
        least = 1 + -(-(self.canvas - self.view) // MARGIN)
        if self.num_frames < least:
            raise ValueError(
                f"`num_frames` must be at least {least} for a scroll of this length, got {self.num_frames};"
                " a faster camera would skip parts of it."
            )

    @property
    def strip(self) -> int:
        """Columns that each frame has."""
        return min(self.canvas, self.view + 1 + 2 * MARGIN)

    def left(self, frame: float) -> int:
        """Return the left side of the view in pixels of the canvas; frames may be halves."""
        return round(frame * (self.canvas - self.view) * self.unit / max(1, self.num_frames - 1))

    def first(self, frame: int) -> int:
        """Return the column of the canvas that is the first one of a frame's strip."""
        return max(0, min(self.left(frame) // self.unit - MARGIN, self.canvas - self.strip))

    @property
    def firsts(self) -> torch.Tensor:
        """The first column of each frame's strip, (num_frames,)."""
        return torch.tensor([self.first(frame) for frame in range(self.num_frames)])

    def columns(self) -> torch.Tensor:
        """Return the column of the canvas of each column of each strip, (num_frames, strip)."""
        return self.firsts[:, None] + torch.arange(self.strip)

    def frames_of(self, column: int) -> torch.Tensor:
        """Return the frames whose strips have a column of the canvas, in order."""
        return ((self.firsts <= column) & (column < self.firsts + self.strip)).nonzero()[:, 0]

    def locate(self, frames: list[int], columns: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Find the latents of a window that is as wide for all its frames.

        A frame whose strip lacks a column borrows it from the nearest frame of the window that has it.

        Args:
            frames: Neighboring frames.
            columns: Columns of the canvas between the first one of the first strip and the last one of the last strip.

        Returns:
            Frame and column in its strip, (len(frames), len(columns)) each.
        """
        firsts, places, numbers = self.firsts[frames], torch.tensor(columns), torch.tensor(frames)
        sees = (firsts[:, None] <= places) & (places < firsts[:, None] + self.strip)
        distance = (numbers[:, None] - numbers).abs()[:, :, None] + self.num_frames * ~sees  # to, from, column
        source = distance.argmin(dim=1)
        return numbers[source], places - firsts[source]

    def frame_at(self, column: int) -> int:
        """Return the frame whose view has a column nearest to its middle."""
        middles = torch.tensor([self.left(frame) for frame in range(self.num_frames)]) + self.view * self.unit / 2
        return int((middles - (column + 0.5) * self.unit).abs().argmin())
