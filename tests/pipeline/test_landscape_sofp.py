"""NADM Eq. 14 and the displacements that follow from it, in closed form."""

import pytest
import torch

from pipeline_landscape_video.landscape_sofp import SparseFlowProjection, project_flow


def constant(x, y=0.0, size=32):
    """Flow of one pair, the same for all pixels."""
    return torch.tensor([x, y]).view(1, 2, 1, 1).expand(1, 2, size, size).contiguous()


def consistent(flow):
    return torch.cat([flow, torch.ones_like(flow[:, :1])], dim=1)


def number(value):
    return torch.full((1, 1, 1, 1), float(value))


def same(field, sigma):
    return field


def displacements(sofp_mode, V1, *others, consistency=1.0):
    """Displacements at t = 0.25, 0.5 and 0.75 with others `(n, VT)`, of which the first is the last frame."""
    forward = consistent(V1)
    forward[:, 2] = consistency
    targets = [(number(n), number(index == 0), consistent(VT)) for index, (n, VT) in enumerate(others)]
    displacement = SparseFlowProjection(sofp_mode).fit(forward, iter(targets), same)
    return [displacement(t).unique().tolist() for t in (0.25, 0.5, 0.75)]


def test_D_is_the_length_along_the_step_in_units_of_it():
    V1 = constant(3.0, 4.0)
    for VT, expected in ((constant(9.0, 12.0), 3.0), (constant(-3.0, -4.0), -1.0), (constant(-4.0, 3.0), 0.0)):
        D_numerator, D_denominator = project_flow(VT, V1)
        assert torch.equal(D_numerator / D_denominator, torch.full((1, 1, 32, 32), expected))
    length, angle = torch.tensor(10.0), torch.tensor(0.3)
    VT = length * torch.stack([angle.cos() * V1[:, 0] - angle.sin() * V1[:, 1], V1[:, 1]], dim=1) / 5
    D_numerator, D_denominator = project_flow(VT, V1)
    along = (VT * V1).sum(1) / V1.square().sum(1).sqrt()
    torch.testing.assert_close((D_numerator / D_denominator)[:, 0], along / 5)


@pytest.mark.parametrize("n", [2, 3, -1])
def test_the_parabola_goes_through_the_other_frame(n):
    # x = t^2: at n, n^2 steps are done.
    expected = [[0.0625], [0.25], [0.5625]]
    torch.testing.assert_close(
        torch.tensor(displacements("quadratic", constant(4.0), (n, constant(4.0 * n**2)))), torch.tensor(expected)
    )


def test_all_other_frames_are_fitted():
    # Frames that agree give the curvature of each; those that contradict each other meet in between.
    agreeing = displacements("quadratic", constant(4.0), (2, constant(16.0)), (-1, constant(4.0)))
    torch.testing.assert_close(torch.tensor(agreeing), torch.tensor([[0.0625], [0.25], [0.5625]]))
    curved, straight = (2, constant(16.0)), (-1, constant(-4.0))
    assert displacements("quadratic", constant(4.0), curved, straight)[1] == pytest.approx([0.375], abs=1e-5)


def test_projection_is_the_paper_taken_literally():
    # D / n = 2, of the last frame only
    last, other = (2, constant(16.0)), (-1, constant(40.0))
    assert displacements("projection", constant(4.0), last, other) == [[0.5], [1.0], [1.0]]


@pytest.mark.parametrize("sofp_mode", ["quadratic", "projection", "linear"])
@pytest.mark.parametrize(
    ("V1", "consistency"), [(constant(0.4), 1.0), (constant(4.0), 0.0)], ids=["too slow", "inconsistent"]
)
def test_other_frames_do_not_count_where_the_step_is_not_measured(sofp_mode, V1, consistency):
    expected = [[0.25], [0.5], [0.75]]
    assert displacements(sofp_mode, V1, (2, constant(16.0)), consistency=consistency) == expected


def test_no_pixel_moves_backward():
    for VT in (constant(400.0), constant(-400.0)):
        displacement = [value for (value,) in displacements("quadratic", constant(4.0), (2, VT))]
        assert 0 <= displacement[0] <= displacement[1] <= displacement[2] <= 1
