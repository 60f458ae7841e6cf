"""Scores against tables counted by hand."""

import numpy as np
import pytest

from affectvlm.metrics import confusion, expected_calibration_error, fit_temperature, summary


def one_hot(predicted, classes=3):
    return np.eye(classes)[predicted]


def test_scores_of_a_hand_made_table():
    labels = np.array([0, 0, 0, 0, 1, 1, 2, 2])
    predicted = np.array([0, 0, 0, 1, 1, 2, 2, 2])
    scores = summary(labels, one_hot(predicted))
    np.testing.assert_array_equal(confusion(labels, predicted, 3), [[3, 1, 0], [0, 1, 1], [0, 0, 2]])
    assert scores["accuracy"] == pytest.approx(6 / 8)
    assert scores["uar"] == pytest.approx((3 / 4 + 1 / 2 + 1) / 3)
    assert scores["macro_f1"] == pytest.approx((2 * 3 / 7 + 2 * 1 / 4 + 2 * 2 / 5) / 3)


def test_a_class_without_samples_does_not_count():
    labels = np.array([0, 0, 1])
    scores = summary(labels, one_hot(np.array([0, 2, 1])))
    assert scores["uar"] == pytest.approx((1 / 2 + 1) / 2)


def test_calibration_error_is_the_gap_between_confidence_and_accuracy():
    chances = np.tile([0.8, 0.2], (10, 1))
    labels = np.array([0] * 6 + [1] * 4)
    assert expected_calibration_error(labels, chances) == pytest.approx(0.2)


@pytest.mark.parametrize("truth", [0.5, 2.0, 7.0])
def test_the_fitted_temperature_undoes_a_scaling(truth):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (20000, 6))
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (chances.cumsum(axis=1) > rng.random((len(chances), 1))).argmax(axis=1)
    assert fit_temperature(labels, logits * truth) == pytest.approx(truth, rel=0.05)
