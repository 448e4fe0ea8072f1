"""The moving average of weights: float32 for weights of any precision, also after a run was resumed."""

import pytest
import torch
from torch import nn

from landscape_video.training.run.checkpoints import TrainingState
from landscape_video.training.run.optimization import WeightAverage, ema_weights


@pytest.mark.parametrize("foreach", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_average_is_float32_and_moves_whatever_the_precision_of_the_weights(dtype, foreach):
    parameter = nn.Parameter(torch.ones(8, dtype=dtype))
    average = WeightAverage({"weight": parameter}, foreach=foreach)
    average.ema.optimization_step = 200_000  # the decay is 0.9999 by now
    with torch.no_grad():
        parameter.fill_(1.5)
    for _ in range(100):
        average.step()
    averaged = average.averages()["weight"]
    assert averaged.dtype is torch.float32
    torch.testing.assert_close(averaged, torch.full((8,), 1.5 - 0.5 * 0.9999**100), rtol=0, atol=1e-5)
    with ema_weights(average):
        assert parameter.dtype is dtype and torch.equal(parameter, averaged.to(dtype))
    assert (parameter == 1.5).all()


@pytest.mark.parametrize("saved", [torch.float32, torch.bfloat16])
def test_resumed_average_of_bfloat16_weights_is_float32(tmp_path, saved):
    def build():
        parameters = {"weight": nn.Parameter(torch.ones(8, dtype=torch.bfloat16))}
        optimizer = torch.optim.AdamW(parameters.values(), 1e-2)
        return TrainingState(parameters, optimizer, WeightAverage(parameters))

    state = build()
    state.parameters["weight"].grad = torch.ones(8, dtype=torch.bfloat16)
    state.optimizer.step()
    for _ in range(2):
        state.average.step()
    state.average.ema.to(dtype=saved)  # as runs of earlier versions saved it
    state.save(tmp_path)
    resumed = build()
    resumed.load(tmp_path)
    averaged = resumed.average.averages()["weight"]
    assert averaged.dtype is torch.float32
    assert torch.equal(averaged, state.average.averages()["weight"].float())
