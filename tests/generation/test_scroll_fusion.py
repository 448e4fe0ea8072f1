"""Hold still what stands still, leave what moves, and make colors agree."""

import torch

from landscape_video.generation.camera_path import CameraPath
from landscape_video.generation.scroll_fusion import hold_still, picture_of, shift_colors, still_picture


PATH = CameraPath(canvas=40, view=16, num_frames=40)


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


CANVAS = draw(40, 4, 8)
STILL = CANVAS[PATH.columns()]  # the strips of a canvas on which nothing moves


def test_flicker_vanishes_and_what_moves_stays():
    flicker = 0.1 * draw(*STILL.shape)
    moving = torch.zeros_like(STILL)
    moving[20, 5:10] = 3.0  # passes in one frame
    fused = hold_still(STILL + flicker + moving, PATH, threshold=0.35)
    at_rest = torch.ones(len(STILL), dtype=torch.bool)
    at_rest[20] = False
    picture = still_picture(STILL + flicker + moving, PATH)[PATH.columns()]
    assert torch.equal(fused[at_rest], picture[at_rest])
    assert (picture - STILL).abs().max() < 0.2  # no ghost of what passed
    assert (fused - STILL)[20, 6:9].mean() > 2.9
    torch.testing.assert_close(hold_still(STILL + flicker, PATH, threshold=0), STILL + flicker)


def test_the_picture_has_each_column_when_the_camera_faces_it():
    assert torch.equal(picture_of(STILL, PATH), CANVAS.permute(1, 2, 0))
    numbers = torch.arange(40.0)[:, None, None, None].expand_as(STILL)
    assert picture_of(numbers, PATH)[0, 0].tolist() == [PATH.frame_at(column) for column in range(40)]


def test_parts_of_a_prompt_get_one_mean_color():
    colors = torch.zeros(40, 4, 1)
    colors[20:] = 2.0
    strips = (colors + torch.zeros(1, 1, 8))[PATH.columns()]
    one = shift_colors(strips, PATH, torch.ones(40, 1))
    assert one.std() < 0.45 * strips.std()
    halves = torch.nn.functional.one_hot((torch.arange(40) >= 20).long(), 2).float()
    two = shift_colors(strips, PATH, halves)
    assert abs((two - strips).mean(dim=(2, 3)))[[0, -1], [2, -3]].max() < 0.5
