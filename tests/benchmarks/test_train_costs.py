"""Counted at the size of Stable Diffusion 1.5: what a training step keeps for its backward pass, and computes."""

from train_costs import Size, count_encoding, count_ours


SIZE = Size(num_frames=16, pixels=512)


def test_sixteen_frames_of_512_keep_at_most_4_gib():
    for layers in ("all", "attention"):
        assert 0.5 * 2**30 < count_ours(SIZE, layers, forward_only=True).kept_bytes <= 4 * 2**30


def test_a_cached_step_computes_at_least_1_4_times_less():
    cached = count_ours(SIZE, None).flop
    assert (cached + count_encoding(SIZE)) / cached >= 1.4
