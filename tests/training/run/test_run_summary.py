"""The summary that a run logs before its first step, and the counting behind it."""

import re

import torch
from diffusers import DDPMScheduler
from diffusers.models.unets.unet_motion_model import UNetMotionOutput

from landscape_video.training.objectives.motion_models import checkpoint_layers
from landscape_video.training.run import run_summary
from landscape_video.training.run.run_summary import LiveBytes, StepTimer, count_groups, count_step, duration
from motion_adapter.build import attach_motion_adapter, freeze_image_layers
from tiny_models import build_motion_adapter, build_unet2d


def test_the_summary_states_parameters_memory_and_duration(train, caplog):
    flags = ("--max_train_steps", "6", "--use_ema", "--gradient_accumulation_steps", "2")
    train("run", *flags)
    trains = re.search(r"Trains: ([\d.]+) M parameters \((.*)\)", caplog.text)
    groups = dict(part.rsplit(" ", 2)[:2] for part in trains[2].replace(" M", " M").split(", "))
    assert groups.keys() == {
        "versatile attention", "sparse-causal attention", "feed-forward", "projections", "noise adapter",
    }  # fmt: skip
    assert abs(sum(map(float, groups.values())) - float(trains[1])) < 0.03
    assert "Frozen: 0.05 M parameters of the image layers (torch.float32), 0.00 M of motion modules" in caplog.text
    memory = re.search(r"about ([\d.]+) GiB \((.*)\)", caplog.text)
    parts = [float(part.split()[-1]) for part in memory[2].split(", ")]
    assert len(parts) == 5 and abs(sum(parts) - float(memory[1])) < 0.03
    assert "5 clips, 4 a step: an epoch is 1.2 steps, and the 6 steps are 4.8 epochs" in caplog.text
    assert re.search(r"A step takes [\d.]+ seconds \(mean of steps 2 to 5\): 1 more take about", caplog.text)
    assert caplog.text.index("Trains:") < caplog.text.index("A step takes")


def test_every_parameter_that_trains_is_in_one_group():
    unet = attach_motion_adapter(build_unet2d(), build_motion_adapter())
    trainable = freeze_image_layers(unet)
    assert sum(count_groups(dict(trainable)).values()) == sum(parameter.numel() for _, parameter in trainable)


def test_bytes_of_live_tensors_are_counted():
    with LiveBytes() as live:
        a = torch.zeros(1000)
        b = a.view(10, 100)  # no memory of its own
        c = b + 1
        assert live.current == 8000
        del a, b
        assert live.current == 4000
        c += 1
        assert live.current == live.peak - 4000 == 4000
        del c
    assert live.current == 0


def test_a_step_is_counted_without_being_computed(monkeypatch):
    torch.manual_seed(0)
    unet = attach_motion_adapter(build_unet2d(), build_motion_adapter()).train()
    freeze_image_layers(unet)
    shapes = ((2, 4, 6, 8, 8), (2, 77, 16))
    plain = count_step(unet, DDPMScheduler(), *shapes)
    assert all(parameter.grad is None for parameter in unet.parameters())
    longer = count_step(unet, DDPMScheduler(), (2, 4, 12, 8, 8), (2, 77, 16))
    assert 1.9 < longer.flop / plain.flop < 2.1 and 1.8 < longer.kept_bytes / plain.kept_bytes < 2.1
    forward = count_step(unet, DDPMScheduler(), *shapes, forward_only=True)
    assert forward.kept_bytes == plain.kept_bytes and forward.flop < 0.6 * plain.flop
    checkpoint_layers(unet, "all")
    thrifty = count_step(unet, DDPMScheduler(), *shapes)
    assert thrifty.kept_bytes < 0.4 * plain.kept_bytes and 1.2 < thrifty.flop / plain.flop < 1.5


class Echo(torch.nn.Module):
    """Predicts what it sees: without weights, it is on every device."""

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor, encoder_hidden_states: torch.Tensor):
        return UNetMotionOutput(sample=sample)


def test_counting_on_a_gpu_leaves_the_noise_schedule_usable():
    """Nothing is computed, so no GPU is needed; the scheduler moves its table to the device of its input."""
    scheduler = DDPMScheduler()
    count_step(Echo(), scheduler, (2, 4, 6, 8, 8), (2, 77, 16), device="cuda", forward_only=True)
    assert type(scheduler.alphas_cumprod) is torch.Tensor and scheduler.alphas_cumprod.device.type == "cpu"


def test_the_time_of_a_step_leaves_out_the_first(monkeypatch, caplog):
    caplog.set_level("INFO")
    times = iter([100.0, 108.0])
    monkeypatch.setattr(run_summary.time, "monotonic", lambda: next(times))
    timer = StepTimer(torch.device("cpu"), first_step=10, max_train_steps=3615)
    for step in range(11, 30):
        timer.after(step)
    assert caplog.messages == ["A step takes 2.00 seconds (mean of steps 2 to 5): 3600 more take about 2.0 hours."]


def test_durations_are_readable():
    assert [duration(seconds) for seconds in (5, 150, 9000, 200_000)] == [
        "5 seconds", "2.5 minutes", "2.5 hours", "2.3 days",
    ]  # fmt: skip
