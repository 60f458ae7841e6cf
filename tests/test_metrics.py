"""Scores against tables counted by hand."""

import numpy as np
import pytest
import torch

from affectvlm.metrics import confusion, expected_calibration_error, fit_margin, fit_temperature, summary
from affectvlm.model import probabilities


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


def resting(n, logit=0.0):
    """Faces without an emotion whose logits say `logit` for the first of six emotions, -9 for the others, 0 for both
    rejection rows."""
    logits = np.tile(np.array([logit, -9, -9, -9, -9, -9, 0, 0], float), (n, 1))
    return np.full(n, 6), logits


def test_no_margin_is_needed_where_resting_faces_are_flat_already():
    assert fit_margin(*resting(200), 6) == 0.0


def test_the_margin_is_the_smallest_that_is_enough():
    labels, logits = resting(200, logit=3.0)
    found = fit_margin(labels, logits, 6)
    for margin, enough in ((found, True), (found - 0.05, False)):
        chances, _ = probabilities(torch.tensor(logits + np.array([0.0] * 6 + [margin] * 2)), 6)
        assert bool(chances.max() < 0.75) == enough


def test_the_margin_counts_before_the_temperature():
    labels, logits = resting(200, logit=3.0)
    alone = fit_margin(labels, logits / 2, 6)
    assert fit_margin(labels, logits, 6, temperature=2.0) == pytest.approx(2 * alone, abs=0.1)


def test_one_resting_face_in_a_hundred_may_be_mistaken():
    labels, logits = resting(200, logit=-9.0)
    logits[:2, 0] = 30.0
    assert fit_margin(labels, logits, 6) == 0.0
    logits[2, 0] = 30.0
    assert fit_margin(labels, logits, 6) == 3.0  # no margin that makes sense is enough


def test_emotions_have_no_say_in_the_margin_and_few_faces_none_at_all():
    labels, logits = resting(200, logit=-9.0)
    sure = np.tile(np.array([30.0, 0, 0, 0, 0, 0, 0, 0]), (50, 1))
    assert fit_margin(np.append(labels, np.zeros(50, int)), np.concatenate([logits, sure]), 6) == 0.0
    assert fit_margin(*resting(99), 6) is None
