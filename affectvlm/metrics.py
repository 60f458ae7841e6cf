"""Scores of a classifier from its probabilities; numpy in, plain numbers out."""

from __future__ import annotations

import numpy as np


def confusion(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """(K, K) int64 counts, true classes in rows."""
    return np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def summary(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Accuracy, unweighted average recall (UAR), macro F1 and expected calibration error.

    Args:
        labels: (n,) integers in [0, K). probabilities: (n, K).

    UAR and F1 are means over the classes that occur among the labels.
    """
    classes = probabilities.shape[1]
    table = confusion(labels, probabilities.argmax(axis=1), classes)
    hits, true, said = np.diag(table), table.sum(axis=1), table.sum(axis=0)
    present = true > 0
    recall = hits[present] / true[present]
    f1 = 2 * hits[present] / (true + said)[present]
    return {
        "n": int(len(labels)),
        "accuracy": float(hits.sum() / max(true.sum(), 1)),
        "uar": float(recall.mean()),
        "macro_f1": float(f1.mean()),
        "ece": expected_calibration_error(labels, probabilities),
    }


def expected_calibration_error(labels: np.ndarray, probabilities: np.ndarray, bins: int = 15) -> float:
    """Mean gap between confidence and accuracy over equal-width bins of confidence, weighted by size (Guo et al.
    2017)."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(place, weights=confidence - right, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


def fit_temperature(labels: np.ndarray, logits: np.ndarray) -> float:
    """The temperature in [0.05, 20] that minimises the negative log-likelihood of softmax(logits / temperature).

    Args:
        labels: (n,) row numbers. logits: (n, K + R).
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    def loss(log_temperature: float) -> float:
        scores = log_softmax(logits.astype(np.float64) / np.exp(log_temperature), axis=1)
        return -scores[np.arange(len(labels)), labels].mean()

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded").x))


def fit_margin(
    labels: np.ndarray, logits: np.ndarray, n_classes: int, temperature: float = 1.0, sure: float = 0.75,
    share: float = 0.01, most: float = 3.0,
) -> float | None:  # fmt: skip
    """The smallest margin in [0, most] with which at most `share` of the faces that show no emotion get a probability
    of `sure` or more for one; steps of 0.05.

    The temperature alone weighs every mistake alike, and most faces it is fitted on show an emotion. Telling a resting
    face with confidence what it feels is the worse mistake.

    Args:
        labels: (n,) row numbers; those from `n_classes` on show no emotion. logits: (n, K + R).
        temperature: as fitted before.

    Returns:
        The margin (`model.probabilities` says how it counts); `most` where no smaller one is enough, None where fewer
        than 1 / `share` faces show no emotion, which tell nothing.
    """
    from scipy.special import softmax

    scores = logits[labels >= n_classes].astype(np.float64)
    if len(scores) * share < 1:
        return None
    for margin in np.arange(0.0, most, 0.05):
        moved = scores.copy()
        moved[:, n_classes:] += margin
        shares = softmax(moved / temperature, axis=1)
        highest = shares[:, :n_classes].max(axis=1) + shares[:, n_classes:].sum(axis=1) / n_classes
        if (highest >= sure).mean() <= share:
            return round(float(margin), 2)
    return most
