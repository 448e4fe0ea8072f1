"""Compare the noise adapter and the contrastive loss with closed forms and with NADM Eqs. 9-11 as printed."""

import math

import numpy as np
import pytest
import torch
from diffusers import ModelMixin

from motion_adapter.noise_adapter import NoiseAdapter, contrastive_loss, minimum_frames


def contrastive_loss_by_hand(embeddings, tau, m, negatives="all", positives="next"):
    """NADM Eqs. 9-11 in numpy, frame by frame as they are printed, with frames numbered from 1."""
    clips = np.asarray(embeddings, dtype=np.float64)
    losses = []
    for clip in clips:
        frames = len(clip)

        def r(i, j, clip=clip):
            a, b = clip[i - 1], clip[j - 1]
            return a @ b / (np.sqrt(a @ a) * np.sqrt(b @ b))

        anchor_losses = []
        for i in range(1, frames):
            last = frames if negatives == "all" else frames - 1
            far = [math.exp(r(i, k) / tau) for k in range(1, last + 1) if abs(k - i) > m]
            near = [i + 1]
            if positives == "within_threshold":
                near = [j for j in range(1, frames + 1) if 0 < abs(j - i) <= m]
            terms = [-math.log(math.exp(r(i, j) / tau) / (math.exp(r(i, j) / tau) + sum(far))) for j in near]
            anchor_losses.append(sum(terms) / len(terms) if far else 0.0)
        losses.append(sum(anchor_losses) / (frames - 1))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("positives", ["next", "within_threshold"])
@pytest.mark.parametrize("negatives", ["all", "eq10"])
@pytest.mark.parametrize(("frames", "m"), [(8, 2), (8, 4), (16, 4), (5, 1)])
def test_loss_equals_the_printed_sums(frames, m, negatives, positives):
    embeddings = torch.randn(3, frames, 16, generator=torch.Generator().manual_seed(frames + m))
    expected = contrastive_loss_by_hand(embeddings, 0.07, m, negatives, positives)
    loss = contrastive_loss(embeddings, 0.07, m, negatives, positives)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_equal_frames_lose_the_logarithm_of_one_plus_their_negatives():
    # Every similarity is 1, so l_i = log(1 + number of negatives): of 8 frames and m = 4, frames 0, 1, 2 have
    # 3, 2, 1 negatives above, and frames 5, 6 have 1, 2 below.
    loss = contrastive_loss(torch.ones(2, 8, 4))
    assert loss.item() == pytest.approx((math.log(4) + math.log(3) + 3 * math.log(2) - math.log(2) + math.log(3)) / 7)


def test_opposite_negatives_cost_little():
    # Of six frames, three point one way and three the other. With m = 3 the anchors 0, 1 and 4 have negatives, all of
    # them opposite (r = -1), and a positive of their own direction (r = 1).
    embeddings = torch.tensor([[[1.0, 0.0]] * 3 + [[-1.0, 0.0]] * 3])
    loss = contrastive_loss(embeddings, temperature=0.5, threshold=3)
    ratio = math.exp(-2 / 0.5)
    assert loss.item() == pytest.approx((math.log1p(2 * ratio) + 2 * math.log1p(ratio)) / 5, rel=1e-4)


def test_only_directions_count():
    embeddings = torch.randn(2, 8, 16, generator=torch.Generator().manual_seed(0))
    lengths = torch.rand(2, 8, 1, generator=torch.Generator().manual_seed(1)) * 10 + 0.1
    torch.testing.assert_close(contrastive_loss(embeddings * lengths), contrastive_loss(embeddings))


def test_temperature_and_threshold_change_the_loss():
    embeddings = torch.randn(1, 12, 16, generator=torch.Generator().manual_seed(0))
    losses = {contrastive_loss(embeddings, t, m).item() for t in (0.07, 0.5) for m in (2, 4)}
    assert len(losses) == 4


def test_loss_is_finite_and_steep_even_where_exponentials_overflow():
    embeddings = torch.randn(1, 8, 16, generator=torch.Generator().manual_seed(0), requires_grad=True)
    loss = contrastive_loss(embeddings, temperature=1e-3)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(embeddings.grad).all() and embeddings.grad.abs().sum() > 0


def test_zero_vectors_give_no_nan():
    embeddings = torch.zeros(1, 8, 16, requires_grad=True)
    loss = contrastive_loss(embeddings)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(embeddings.grad).all()


def test_descending_the_loss_orders_the_frames():
    torch.manual_seed(0)
    embeddings = torch.randn(1, 8, 8, requires_grad=True)
    optimizer = torch.optim.Adam([embeddings], lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        contrastive_loss(embeddings).backward()
        optimizer.step()
    similarity = torch.nn.functional.cosine_similarity(embeddings[0, :, None], embeddings[0, None], dim=-1)
    near = similarity.diagonal(offset=1)
    assert near[0] > similarity[0, 5:].max() and near[6] > similarity[6, :2].max()


@pytest.mark.parametrize(
    ("frames", "m", "negatives"), [(5, 4, "all"), (8, 6, "eq10"), (6, 4, "eq10"), (8, 7, "all"), (2, 1, "all")]
)
def test_a_clip_without_any_negative_is_refused(frames, m, negatives):
    with pytest.raises(ValueError, match=f"`num_frames` must be at least {minimum_frames(m, negatives)} "):
        contrastive_loss(torch.randn(1, frames, 4), threshold=m, negatives=negatives)


@pytest.mark.parametrize(("m", "negatives"), [(4, "all"), (4, "eq10"), (6, "all"), (1, "eq10")])
def test_the_shortest_clip_has_a_negative(m, negatives):
    assert contrastive_loss(torch.randn(1, minimum_frames(m, negatives), 4), threshold=m, negatives=negatives) > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"negatives": "some"}, "`negatives` must be one of all, eq10, got 'some'"),
        ({"positives": "last"}, "`positives` must be one of next, within_threshold, got 'last'"),
        ({"threshold": 0}, "`threshold` must be at least 1, got 0"),
        ({"temperature": 0.0}, "`temperature` must be above 0, got 0.0"),
        ({"embeddings": torch.zeros(8, 4)}, r"shape \(batch, num_frames, embedding_dim\), got \(8, 4\)"),
        ({"embeddings": torch.zeros(1, 1, 4)}, "`num_frames` must be at least 6 .*, got 1"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        contrastive_loss(**({"embeddings": torch.randn(1, 8, 4)} | arguments))


def test_adapter_embeds_each_frame_by_itself():
    adapter = NoiseAdapter(in_channels=4, pool_size=8)
    noise = torch.randn(2, 4, 5, 16, 24, generator=torch.Generator().manual_seed(0))
    embeddings = adapter(noise)
    assert embeddings.shape == (2, 5, 128)
    for frame in range(5):
        torch.testing.assert_close(adapter(noise[:, :, frame : frame + 1])[:, 0], embeddings[:, frame])


def test_adapter_is_pooling_linear_relu_linear():
    adapter = NoiseAdapter(in_channels=2, pool_size=4, hidden_dim=7, embedding_dim=3)
    noise = torch.randn(1, 2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    pooled = noise[0, :, 0].reshape(2, 4, 2, 4, 2).mean(dim=(2, 4)).flatten()
    hidden = (adapter.linear_1.weight @ pooled + adapter.linear_1.bias).clamp(min=0)
    torch.testing.assert_close(adapter(noise)[0, 0], adapter.linear_2.weight @ hidden + adapter.linear_2.bias)


def test_adapter_computes_in_float32_under_autocast():
    adapter = NoiseAdapter(pool_size=4)
    noise = torch.randn(1, 4, 2, 8, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        embeddings = adapter(noise)
    assert embeddings.dtype == torch.float32
    torch.testing.assert_close(embeddings, adapter(noise.float()), rtol=0, atol=0)


def test_adapter_refuses_other_channels():
    with pytest.raises(ValueError, match=r"num_frames, height, width\), got \(2, 4, 8, 8\)"):
        NoiseAdapter(in_channels=4, pool_size=4)(torch.zeros(2, 4, 8, 8))
    with pytest.raises(ValueError, match="batch, 4, num_frames"):
        NoiseAdapter(in_channels=4, pool_size=4)(torch.zeros(1, 8, 2, 8, 8))


def test_adapter_is_saved_and_loaded(tmp_path):
    adapter = NoiseAdapter(in_channels=8, pool_size=4, hidden_dim=16, embedding_dim=8)
    assert isinstance(adapter, ModelMixin)
    adapter.save_pretrained(tmp_path)
    loaded = NoiseAdapter.from_pretrained(tmp_path)
    noise = torch.randn(1, 8, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(loaded(noise), adapter(noise), rtol=0, atol=0)
