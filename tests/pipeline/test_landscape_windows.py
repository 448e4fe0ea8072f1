"""Windows cover every position, move with the step, and their average equals what the papers average."""

import pytest
import torch
from diffusers import DDIMScheduler

from pipeline_landscape_video.landscape_windows import (
    CONTEXT_SCHEDULES,
    WindowPlan,
    average_windows,
    window_weights,
)


STEPS = 50


@pytest.mark.parametrize("schedule", CONTEXT_SCHEDULES)
@pytest.mark.parametrize("overlap", range(16))
def test_windows_cover_every_frame_of_every_length(schedule, overlap):
    for length in range(1, 201):
        plan = WindowPlan(length, 16, overlap, schedule)
        # Offsets repeat after as many steps as there are, so these are the windows of all steps.
        for step in range(min(STEPS, plan.stride)):
            windows = plan.windows(step)
            assert {len(window) for window in windows} == {min(length, 16)}
            assert all(window == list(range(window[0], window[0] + len(window))) for window in windows)
            assert windows[0][0] == 0 and windows[-1][-1] == length - 1
            for before, after in zip(windows, windows[1:], strict=False):
                assert 0 < after[0] - before[0] <= plan.stride  # at least `overlap` positions in both
        assert plan.windows(plan.stride) == plan.windows(0)


@pytest.mark.parametrize("overlap", [0, 4, 15])
def test_windows_of_a_closed_loop_cover_every_frame_and_the_join(overlap):
    for length in range(1, 201):
        plan = WindowPlan(length, 16, overlap, closed_loop=True)
        for step in range(min(STEPS, plan.stride)):
            windows = plan.windows(step)
            assert {frame for window in windows for frame in window} == set(range(length))
            for window in windows:
                assert len(set(window)) == len(window) == plan.size
                assert all(
                    (after - before) % length == 1 % length for before, after in zip(window, window[1:], strict=False)
                )
            starts = [window[0] for window in windows]
            gaps = [(b - a) % length or length for a, b in zip(starts, starts[1:] + starts[:1], strict=True)]
            assert max(gaps) <= plan.stride


def test_moved_windows_visit_every_offset_and_static_ones_stay():
    plan = WindowPlan(96)
    assert sorted(plan.offset(step) for step in range(plan.stride)) == list(range(plan.stride))
    assert all(plan.offset(step) != plan.offset(step + 1) for step in range(STEPS))
    static = WindowPlan(96, schedule="static")
    assert {tuple(map(tuple, static.windows(step))) for step in range(STEPS)} == {tuple(map(tuple, static.windows(0)))}


def test_windows_cost_at_most_as_much_as_the_issue_allows():
    for length, most in ((96, 1.45), (192, 1.4), (512, 1.4)):
        plan = WindowPlan(length)
        frames = sum(len(window) for step in range(25) for window in plan.windows(step))
        assert frames / 25 / length <= most


def test_pyramid_and_flat_weights():
    def weights_of(weights, shape=(1, 4, 40, 2, 3), dim=2):
        return window_weights(WindowPlan(40, 5, 1, weights=weights), shape, dim)

    assert weights_of("pyramid").flatten().tolist() == [1, 2, 3, 2, 1]
    assert torch.equal(weights_of("flat"), torch.ones(1, 1, 5, 1, 1))
    assert weights_of([1, 2, 3, 4, 5], (1, 4, 3, 2, 40), dim=4).shape == (1, 1, 1, 1, 5)
    assert weights_of(torch.ones(5, 1, 2, 3)).shape == (1, 1, 5, 2, 3)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("sharp", "`context_weights` must be one of pyramid, flat, got 'sharp'"),
        ([1.0, 2.0], r"`context_weights` must have the shape \(5,\) or \(5, 1, 2, 3\), got \(2,\)"),
        (torch.ones(5, 1, 3, 2), r"got \(5, 1, 3, 2\)"),
        ([1, 1, 0, 1, 1], "must be finite and above 0"),
        ([1, 1, float("nan"), 1, 1], "must be finite and above 0"),
    ],
)
def test_wrong_weights_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        window_weights(WindowPlan(40, 5, 1, weights=weights), (1, 4, 40, 2, 3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"window": 0}, "`context_length` must be a whole number of at least 1, got 0"),
        ({"window": 4.5}, "`context_length` must be a whole number"),
        ({"overlap": -1}, "`context_overlap` must be a whole number of at least 0, got -1"),
        ({"overlap": 16}, "`context_overlap` must be smaller than `context_length`, 16, got 16"),
        ({"schedule": "uniform"}, "`context_schedule` must be one of moved, static, got 'uniform'"),
    ],
)
def test_wrong_plans_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        WindowPlan(40, **arguments)


def predictor_for(positions):
    """A prediction that depends on the window: each position sees the mean of its window and its place in it."""
    place = torch.linspace(-1, 1, len(positions)).view(-1, 1, 1)
    return lambda latents, timestep, step: latents.mean(dim=2, keepdim=True) + place + 0.1 * latents


def test_a_short_clip_is_sampled_as_without_windows():
    latents = torch.randn(1, 4, 16, 2, 2)
    averaged = average_windows(WindowPlan(16), predictor_for)(latents, 0, 3)
    assert torch.equal(averaged, predictor_for(range(16))(latents, 0, 3))


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_flat_windows_average_the_outputs_of_the_scheduler(prediction_type):
    scheduler = DDIMScheduler(prediction_type=prediction_type, clip_sample=False)
    scheduler.set_timesteps(10)
    latents, plan = torch.randn(2, 4, 41, 3, 3), WindowPlan(41, 16, 4, weights="flat")
    for step, timestep in enumerate(scheduler.timesteps[:5]):
        noise_pred = average_windows(plan, predictor_for)(latents, timestep, step)
        ours = scheduler.step(noise_pred, timestep, latents).prev_sample
        total, count = torch.zeros_like(latents), torch.zeros(41)
        for frames in plan.windows(step):  # Gen-L-Video: a step per window, then the average
            part = latents[:, :, frames]
            total[:, :, frames] += scheduler.step(predictor_for(frames)(part, 0, 0), timestep, part).prev_sample
            count[frames] += 1
        torch.testing.assert_close(ours, total / count.view(-1, 1, 1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("shape", "dim"), [((1, 2, 3, 4, 40), 4), ((1, 2, 40, 4, 3), 2), ((1, 2, 3, 40), 3)])
@pytest.mark.parametrize("closed_loop", [False, True])
def test_windows_along_any_axis_keep_what_does_not_depend_on_them(shape, dim, closed_loop):
    latents = torch.randn(shape)
    plan = WindowPlan(40, 16, 4, closed_loop=closed_loop)
    twice = average_windows(plan, lambda positions: lambda part, timestep, step: 2 * part, dim)
    torch.testing.assert_close(twice(latents, 0, 5), 2 * latents)


def test_weights_of_pixels_choose_between_windows():
    # Two windows of 3 over 4 frames. On the left, the first position of a window counts; on the right, the last one.
    weights = torch.full((3, 1, 1, 2), 1e-6)
    weights[0, ..., 0] = weights[2, ..., 1] = 1
    plan = WindowPlan(4, 3, 2, "static", weights)
    predict = average_windows(plan, lambda frames: lambda part, t, step: torch.full_like(part, frames[0]))
    noise_pred = predict(torch.zeros(1, 1, 4, 1, 2), 0, 0)[0, 0, :, 0]
    torch.testing.assert_close(noise_pred[1], torch.tensor([1.0, 0.5]), atol=1e-5, rtol=0)
    torch.testing.assert_close(noise_pred[2], torch.tensor([0.5, 0.0]), atol=1e-5, rtol=0)
