"""Peak memory is what was held at most, not what is held, and not what was held before."""

import sys

import pytest
import torch

from landscape_video.evaluation.systems.clips import PeakMemory


MIB = 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the peak of a process")
def test_the_peak_of_this_process():
    block = torch.ones(100 * MIB // 4)  # held before, so it does not count
    memory = PeakMemory("cpu")
    memory.reset()
    before = memory.gib()
    torch.ones(300 * MIB // 4)  # held for a moment
    assert 0.2 < memory.gib() - before < 0.5
    memory.reset()
    assert memory.gib() < 0.2
    assert len(block)


def test_where_nothing_is_known():
    assert PeakMemory("meta").gib() is None
