"""Rank pooling against exact fractions, sums written out over pairs, and general-purpose optimisers."""

from __future__ import annotations

import tracemalloc
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from scipy.optimize import minimize

from affectvlm.rank_pooling import (
    RankPooling,
    approximate_weights,
    linear_weights,
    pool_by_ranking,
    pool_by_regression,
    rank_pool,
    to_uint8,
)

TABLE = {
    1: "1",
    2: "-1/2 1/2",
    3: "-4/3 2/3 2/3",
    4: "-29/12 7/12 13/12 3/4",
    5: "-37/10 3/10 13/10 13/10 4/5",
    6: "-103/20 -3/20 27/20 101/60 43/30 5/6",
}
"""Weights of approximate rank pooling as published tables and other implementations give them."""


def frames_of(count: int, size: int = 7, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, size))


def running_means(frames: np.ndarray) -> list[np.ndarray]:
    return [frames[: t + 1].mean(axis=0) for t in range(len(frames))]


def by_pairs(frames: np.ndarray) -> np.ndarray:
    """Σ_{q>t} (V_q - V_t), as it is written."""
    means = running_means(frames)
    return sum(later - earlier for earlier, later in combinations(means, 2))


def exact_weights(count: int) -> list[Fraction]:
    """α from the pair sum in exact arithmetic: V_i holds each of its frames with 1/i, and stands in i - 1 pairs as the
    later and in T - i as the earlier."""
    return [
        sum(Fraction((i - 1) - (count - i), i) for i in range(t, count + 1)) if count > 1 else Fraction(1)
        for t in range(1, count + 1)
    ]


@pytest.mark.parametrize("form", ["sums", "harmonic"])
@pytest.mark.parametrize("count", TABLE)
def test_the_weights_are_those_of_the_table(count, form):
    expected = [Fraction(text) for text in TABLE[count].split()]
    assert expected == exact_weights(count)
    assert approximate_weights(count, form) == pytest.approx([float(x) for x in expected], abs=1e-13)


def test_longer_tables():
    assert approximate_weights(8) == pytest.approx(
        [-8.4607, -1.4607, 1.0393, 2.0393, 2.2893, 2.0893, 1.5893, 0.8750], abs=5e-5
    )
    assert approximate_weights(10)[[0, 5, 9]] == pytest.approx([-12.2187, 2.8980, 0.9], abs=5e-5)


@pytest.mark.parametrize("count", [2, 3, 7, 50, 1000])
def test_both_closed_forms_agree_and_sum_to_nothing(count):
    sums, harmonic = approximate_weights(count), approximate_weights(count, "harmonic")
    assert np.allclose(sums, harmonic, rtol=0, atol=1e-9 * count)
    assert abs(sums.sum()) < 1e-10 * count**2 and abs(linear_weights(count).sum()) < 1e-9
    assert sums[-1] == pytest.approx(1 - 1 / count)
    assert linear_weights(count) == pytest.approx([2 * t - count - 1 for t in range(1, count + 1)])


@pytest.mark.parametrize("count", [2, 3, 4, 9, 40])
def test_one_pass_equals_weights_equals_the_sum_over_pairs(count):
    frames = frames_of(count)
    pairs = by_pairs(frames)
    assert np.allclose(rank_pool(frames, mean=False), pairs, rtol=0, atol=1e-10)
    assert np.allclose(approximate_weights(count) @ frames, pairs, rtol=0, atol=1e-10)
    assert np.allclose(rank_pool(frames), pairs / (count * (count - 1) / 2), rtol=0, atol=1e-12)
    linear = sum(later - earlier for earlier, later in combinations(frames, 2))
    assert np.allclose(rank_pool(frames, running_mean=False, mean=False), linear, rtol=0, atol=1e-10)


def test_a_constant_video_and_a_constant_shift_change_nothing():
    frames = frames_of(30)
    still = np.tile(1000.0 + frames[0], (200, 1))
    assert np.abs(rank_pool(still)).max() < 1e-9
    assert np.allclose(rank_pool(frames + 1000.0), rank_pool(frames), rtol=0, atol=1e-9)


def test_a_single_frame_is_given_back():
    frame = frames_of(1)
    for pooled in (rank_pool(frame), rank_pool(frame, False, False), pool_by_regression(frame), pool_by_ranking(frame)):
        assert np.array_equal(pooled, frame[0])


def test_time_reversed():
    frames = frames_of(6)
    assert np.allclose(rank_pool(frames[::-1], running_mean=False), -rank_pool(frames, running_mean=False))
    assert not np.allclose(rank_pool(frames[::-1]), -rank_pool(frames), atol=0.05)
    assert np.allclose(rank_pool(frames[:2][::-1]), -rank_pool(frames[:2]))


@pytest.mark.parametrize("running_mean", [True, False])
def test_a_pixel_with_holes_is_pooled_over_the_frames_that_have_it(running_mean):
    rng = np.random.default_rng(3)
    frames, valid = rng.normal(size=(12, 4, 5, 3)), rng.random((12, 4, 5)) < 0.6
    valid[:, 0, 0], valid[:, 0, 1] = False, np.arange(12) == 4
    pooling = RankPooling(running_mean)
    for frame, mask in zip(frames, valid, strict=True):
        pooling.add(np.where(mask[..., None], frame, np.nan), mask)
    found, sums = pooling.result(), pooling.result(mean=False)
    assert np.array_equal(pooling.seen, valid.sum(axis=0))
    for row, col in np.ndindex(4, 5):
        own = frames[valid[:, row, col], row, col]
        expected = rank_pool(own, running_mean) if len(own) > 1 else np.zeros(3)
        assert np.allclose(found[row, col], expected, rtol=0, atol=1e-12)
        pairs = max(len(own) * (len(own) - 1) / 2, 1)
        assert np.allclose(sums[row, col], expected * pairs, rtol=0, atol=1e-10)
    seldom = valid.sum(axis=0) < 0.5 * 12
    assert (pooling.result(least=0.5)[seldom] == 0).all() and seldom.any() and not seldom.all()


def test_a_hole_that_flickers_is_no_motion():
    pooling, masked = RankPooling(), RankPooling()
    for t in range(20):
        hole = np.arange(5) == t % 5
        pooling.add(np.where(hole, 0.0, 0.7))
        masked.add(np.where(hole, 0.0, 0.7), ~hole)
    assert np.abs(masked.result()).max() < 1e-12 < 0.01 < np.abs(pooling.result()).max()


def test_masks_may_come_late_and_become_finer():
    frames = frames_of(6, 12).reshape(6, 2, 3, 2)
    whole, mixed = RankPooling(), RankPooling()
    masks = [None, None, np.ones((2, 3), bool), np.ones((2, 3, 2), bool), np.ones(2, bool), None]
    for frame, mask in zip(frames, masks, strict=True):
        whole.add(frame)
        mixed.add(frame, mask)
    assert np.allclose(whole.result(), mixed.result(), rtol=0, atol=1e-13)
    assert len(mixed) == 6 and (mixed.seen == 6).all() and whole.seen == 6


def test_the_length_costs_no_memory():
    pooling, frame = RankPooling(), np.ones((100, 100))
    pooling.add(frame)
    tracemalloc.start()
    try:
        for _ in range(500):
            pooling.add(frame)
        assert tracemalloc.get_traced_memory()[1] < 12 * frame.nbytes
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("count", "size", "cost"), [(2, 3, 1.0), (6, 4, 1.0), (9, 20, 10.0), (12, 3, 0.05)])
def test_regression_is_the_least_of_its_objective(count, size, cost):
    frames, epsilon = frames_of(count, size), 0.1
    means = np.array(running_means(frames))
    means /= np.linalg.norm(means, axis=1, keepdims=True)

    def objective(w):
        off = np.maximum(np.abs(np.arange(1, count + 1) - means @ w) - epsilon, 0)
        return w @ w / 2 + cost * (off**2).sum()

    slow = minimize(objective, np.zeros(size), method="BFGS", options={"gtol": 1e-9, "maxiter": 5000})
    found = pool_by_regression(frames, cost, epsilon)
    assert objective(found) <= slow.fun * (1 + 1e-12) and np.allclose(found, slow.x, rtol=1e-4, atol=1e-5)
    # at the minimum the gradient is nothing: an exact statement, unlike the optimiser's
    miss = np.arange(1, count + 1) - means @ found
    assert np.allclose(found, 2 * cost * (np.sign(miss) * np.maximum(np.abs(miss) - epsilon, 0)) @ means, atol=1e-9)


def test_the_signed_root_is_taken_before_the_length():
    frames = frames_of(8)
    means = np.array(running_means(frames))
    rooted = np.sign(means) * np.sqrt(np.abs(means))
    found = pool_by_regression(frames, signed_root=True)
    rooted /= np.linalg.norm(rooted, axis=1, keepdims=True)
    miss = np.arange(1, 9) - rooted @ found
    assert np.allclose(found, 2 * (np.sign(miss) * np.maximum(np.abs(miss) - 0.1, 0)) @ rooted, atol=1e-9)


@pytest.mark.parametrize(("count", "size", "weight"), [(2, 3, 1.0), (5, 4, 0.1), (6, 3, 0.01), (4, 30, 1e-3)])
def test_ranking_is_the_least_of_its_objective(count, size, weight):
    """Against a general solver for the quadratic programme with one slack a pair."""
    frames = frames_of(count, size)
    rises = np.array([later - earlier for earlier, later in combinations(running_means(frames), 2)])
    pairs = len(rises)

    def objective(d):
        return weight / 2 * d @ d + np.maximum(0, 1 - rises @ d).mean()

    slow = minimize(
        lambda z: weight / 2 * z[:size] @ z[:size] + z[size:].mean(),
        np.concatenate([np.zeros(size), np.ones(pairs)]),
        jac=lambda z: np.concatenate([weight * z[:size], np.full(pairs, 1 / pairs)]),
        constraints={
            "type": "ineq",
            "fun": lambda z: z[size:] - 1 + rises @ z[:size],
            "jac": lambda _: np.hstack([rises, np.eye(pairs)]),
        },
        bounds=[(None, None)] * size + [(0, None)] * pairs,
        method="SLSQP",
        options={"ftol": 1e-13, "maxiter": 2000},
    )
    found = pool_by_ranking(frames, weight)
    assert objective(found) <= slow.fun + 1e-8
    assert np.allclose(found, slow.x[:size], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("weight", [1e-3, 1e-2, 1.0, 100.0])
def test_ranking_meets_the_bound_of_the_dual(weight):
    """Any multipliers within their box bound the least loss from below; these come from a general solver."""
    frames = np.cumsum(frames_of(25, 60), axis=0) * 0.1 + frames_of(25, 60, seed=1)
    rises = np.array([later - earlier for earlier, later in combinations(running_means(frames), 2)])
    found = pool_by_ranking(frames, weight)
    primal = weight / 2 * found @ found + np.maximum(0, 1 - rises @ found).mean()
    cap = 1 / (len(rises) * weight)

    def dual(share):
        d = cap * share @ rises
        return weight / 2 * d @ d - share.mean(), (weight * cap * rises @ d) - 1 / len(rises)

    options = {"maxiter": 20000, "maxfun": 20000, "ftol": 1e-15, "gtol": 1e-12}
    bound = minimize(dual, np.full(len(rises), 0.5), jac=True, bounds=[(0, 1)] * len(rises), options=options)
    assert -bound.fun - 1e-9 <= primal <= -bound.fun * (1 + 1e-4)


def test_ranking_tends_to_the_approximate_form_where_the_size_counts_most():
    frames = frames_of(15)
    assert np.allclose(1e6 * pool_by_ranking(frames, 1e6), rank_pool(frames), rtol=0, atol=1e-8)


def test_the_exact_forms_rank_the_frames():
    rise = np.linspace(0, 1, 12)[:, None] * frames_of(1, 40) + 0.02 * frames_of(12, 40, seed=2)
    for pooled in (pool_by_regression(rise, cost=10), pool_by_ranking(rise, 1e-3)):
        scores = np.array(running_means(rise)) @ pooled
        assert (np.diff(scores) > 0).all()


def test_frames_keep_their_shape():
    frames = frames_of(5, 24).reshape(5, 2, 3, 4)
    for pooled in (rank_pool(frames), pool_by_regression(frames), pool_by_ranking(frames)):
        assert pooled.shape == (2, 3, 4) and pooled.dtype == np.float64
    assert np.array_equal(pool_by_ranking(np.ones((4, 3))), np.zeros(3))


def test_bytes_keep_the_strength_of_motion_by_default():
    image = frames_of(2, 48).reshape(2, 4, 4, 3)
    plain = to_uint8(image, 2.0)
    assert np.array_equal(plain, np.rint(128 + 127 * np.clip(image / 2, -1, 1)))
    assert (to_uint8(np.zeros((4, 4, 3))) == 128).all() and (to_uint8(np.zeros((4, 4, 3)), None) == 128).all()
    assert np.ptp(to_uint8(image / 10, 2.0).astype(int)) < np.ptp(plain.astype(int)) / 5
    stretched = to_uint8(image, None)
    assert np.array_equal(stretched, to_uint8(image / 10, None))
    for one, bytes_ in zip(image, stretched, strict=True):  # each by itself, its channels together
        assert np.array_equal(bytes_, np.rint(255 * (one - one.min()) / np.ptp(one)))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: approximate_weights(0),
        lambda: approximate_weights(3, "linear"),
        lambda: linear_weights(0),
        lambda: RankPooling().result(),
        lambda: rank_pool([]),
        lambda: rank_pool([np.ones(3), np.ones(4)]),
        lambda: rank_pool([np.ones(3), np.full(3, np.nan)]),
        lambda: RankPooling().add(np.ones((2, 3)), np.ones(3, bool)),
        lambda: pool_by_regression(np.ones((3, 2)), cost=0),
        lambda: pool_by_regression(np.full((3, 2), np.inf)),
        lambda: pool_by_ranking(np.ones((3, 2)), regularisation=-1),
        lambda: pool_by_ranking(np.zeros((0, 2))),
        lambda: to_uint8(np.ones((2, 2, 3)), 0.0),
        lambda: to_uint8(np.full((2, 2, 3), np.nan)),
    ],
)
def test_what_cannot_be_pooled_is_refused_in_words(wrong):
    with pytest.raises(ValueError, match="needed"):
        wrong()
