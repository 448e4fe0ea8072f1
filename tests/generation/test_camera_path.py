"""Follow a camera along a handscroll: what each frame sees, and where windows find their latents."""

import pytest
import torch

from landscape_video.generation.camera_path import MARGIN, CameraPath


PATH = CameraPath(canvas=60, view=16, num_frames=50, unit=16)


def test_the_camera_goes_from_end_to_end_and_never_leaves_a_strip():
    assert PATH.left(0) == 0 and PATH.left(49) == (60 - 16) * 16
    for frame in range(50):
        first = PATH.first(frame) * 16
        for time in (frame - 0.5, frame, frame + 0.5):
            if 0 <= time <= 49:
                assert first <= PATH.left(time) and PATH.left(time) + 16 * 16 <= first + PATH.strip * 16
    assert PATH.first(25) * 16 <= PATH.left(25) - MARGIN * 16  # the decoder sees neighbors away from the ends


def test_a_window_takes_its_own_latents_or_those_of_the_nearest_frame():
    canvas_of = PATH.columns()
    frames = list(range(10, 26))
    columns = list(range(PATH.first(10), PATH.first(25) + PATH.strip))
    numbers, places = PATH.locate(frames, columns)
    assert torch.equal(canvas_of[numbers, places], torch.tensor(columns).expand(16, -1))
    for row, frame in enumerate(frames):
        for column, number in zip(columns, numbers[row].tolist(), strict=True):
            seers = [other for other in PATH.frames_of(column).tolist() if other in frames]
            assert abs(number - frame) == min(abs(other - frame) for other in seers)


def test_the_frame_of_a_column_has_it_in_the_middle():
    assert [PATH.frame_at(0), PATH.frame_at(59)] == [0, 49]
    frame = PATH.frame_at(30)
    assert abs(PATH.left(frame) + 8 * 16 - 30.5 * 16) <= 16


@pytest.mark.parametrize(
    ("canvas", "num_frames", "message"),
    [(8, 20, "`length` must be at least 1 screen, got 0.5"), (60, 22, "`num_frames` must be at least 23")],
)
def test_wrong_sizes_are_refused(canvas, num_frames, message):
    with pytest.raises(ValueError, match=message):
        CameraPath(canvas, 16, num_frames)
