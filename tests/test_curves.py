"""Emotion curves of made-up probabilities whose course is known."""

from __future__ import annotations

import json

import numpy as np
import pytest

from affectvlm.curves import LEAST_APEX, emotion_curve, phases, smooth
from affectvlm.emotions import EKMAN
from affectvlm.synthesis.timing import timeline


def answers(strength: np.ndarray, emotion: str = "fear") -> np.ndarray:
    """Probabilities as a predictor reports them: (1 - p_reject) of one class, the rest flat."""
    chosen = np.eye(6)[EKMAN.index(emotion)]
    return strength[:, None] * chosen + (1 - strength[:, None]) / 6


def curve_of(strength: np.ndarray, **options):
    frames = options.pop("frames", np.arange(1, len(strength) + 1))
    return emotion_curve(EKMAN, "fear", frames, answers(strength), strength, **options)


def test_onset_apex_and_offset_of_a_timeline():
    truth = timeline(1.0, 0.8, 1.2, 25, peak=0.9)
    noisy = np.clip(truth + np.random.default_rng(0).normal(0, 0.03, len(truth)), 0, 1)
    curve = curve_of(noisy)
    # 30 % of the rise; the smoothing moves that by less than two frames
    rise, fall = np.flatnonzero(truth >= 0.3 * 0.9)[[0, -1]]
    assert abs(curve.onset - rise) <= 2 and abs(curve.offset - fall) <= 2
    top = np.flatnonzero(truth >= 0.9 * 0.9)
    assert abs(curve.apex - top.mean()) <= 2
    assert np.abs(curve.smoothed - answers(truth)).mean() < np.abs(curve.raw - answers(truth)).mean()


def test_an_expression_that_is_there_from_the_start_has_no_onset():
    fall = timeline(0, 0.6, 1.0, 25)
    assert phases(fall)[0] is None and phases(fall)[2] is not None
    assert phases(fall[::-1])[2] is None and phases(fall[::-1])[0] == len(fall) - 1 - phases(fall)[2]
    assert phases(np.full(9, 0.8)) == (None, 4, None)


def test_where_nothing_is_expressed_nothing_is_found():
    assert phases(np.full(20, 0.9 * LEAST_APEX)) == (None, None, None)
    assert curve_of(np.zeros(20)).apex is None


def test_the_stretch_about_the_apex_counts_and_not_an_earlier_twitch():
    strength = np.zeros(40)
    strength[5:8], strength[20:30] = 0.6, 0.9
    assert phases(strength) == (20, 24, 29)


def test_smoothing_keeps_sums_constants_and_lines_within():
    rng = np.random.default_rng(1)
    shares = rng.dirichlet(np.ones(6), 50)
    assert np.allclose(smooth(np.arange(50), shares).sum(axis=1), 1, rtol=0, atol=1e-12)
    assert np.allclose(smooth(np.arange(9), np.full(9, 0.3)), 0.3)
    line = smooth(np.arange(60), np.linspace(0, 1, 60))
    assert np.allclose(line[10:-10], np.linspace(0, 1, 60)[10:-10], rtol=0, atol=1e-9)
    assert np.array_equal(smooth(np.arange(4), shares[:4], 0), shares[:4])
    assert np.array_equal(smooth(np.array([7]), shares[:1]), shares[:1])


def test_a_gap_in_time_separates():
    frames = np.array([1, 2, 3, 4, 100, 101, 102, 103])
    values = np.array([0.0] * 4 + [1.0] * 4)
    assert np.allclose(smooth(frames, values), values, rtol=0, atol=1e-12)


def test_a_curve_survives_json():
    curve = curve_of(timeline(0.5, 0.2, 0.5, 20), times=np.arange(25) / 20)
    plain = curve.to_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["times"][-1] == 1.2 and len(plain["raw"]["fear"]) == 25 and plain["emotion"] == "fear"


def test_a_single_frame_is_a_curve():
    curve = curve_of(np.array([0.9]))
    assert (curve.onset, curve.apex, curve.offset) == (None, 0, None) and np.array_equal(curve.raw, curve.smoothed)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: curve_of(np.zeros(0)),
        lambda: curve_of(np.zeros(3), frames=np.array([1, 1, 2])),
        lambda: curve_of(np.zeros(3), frames=np.arange(4)),
        lambda: curve_of(np.zeros(3), times=np.arange(2)),
        lambda: curve_of(np.zeros(3), sigma=-1.0),
        lambda: emotion_curve(EKMAN, "joy", np.arange(2), np.zeros((2, 6)), np.zeros(2)),
    ],
)
def test_what_is_no_curve_is_refused_in_words(wrong):
    with pytest.raises(ValueError, match="needed"):
        wrong()
