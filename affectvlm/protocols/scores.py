"""Scores of outcomes: accuracy, UAR, F1, calibration; intervals over people; spread over folds and runs.

A class counts in a mean where it has a true sample; its F1 is 0 where none was found. For the UF1 of micro-expressions
the table is that of all folds together, as is usual there: means of the F1 of single folds come out too high.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from affectvlm.metrics import expected_calibration_error
from affectvlm.protocols.outcomes import Outcomes

THRESHOLD = 0.5
"""From which a class of several counts as present; fixed beforehand."""

BINS = 15
DRAWS = 2000
_BOOTSTRAP = 77
"""Keeps these random numbers apart from those of folds."""


def counts_of(outcomes: Outcomes, threshold: float | None = None) -> np.ndarray:
    """(K, 3) int64 hits, false alarms and misses of each class: TP, FP and FN.

    Args:
        threshold: None says the class with the largest share. A number, where a sample may bear several classes, says
            each class whose share reaches it.
    """
    true = outcomes.truths
    if threshold is None:
        numbers = np.arange(len(outcomes.classes))
        said, true = outcomes.predicted[:, None] == numbers, outcomes.labels[:, None] == numbers
    else:
        said = outcomes.probabilities >= threshold
    return np.stack([(said & true).sum(0), (said & ~true).sum(0), (~said & true).sum(0)], axis=1)


def from_counts(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Scores of tables of hits, false alarms and misses.

    Args:
        counts: (..., K, 3).

    Returns:
        accuracy = TP / N over all classes, uar = mean of TP / N_c, macro_f1 = mean of 2 TP / (2 TP + FP + FN), means
        over the classes with a true sample (UAR and UF1 of the micro-expression literature); (...) float64 each.
    """
    hits, alarms, misses = (np.asarray(counts, np.float64)[..., column] for column in range(3))
    true = hits + misses
    present = true > 0
    number = np.maximum(present.sum(-1), 1)
    recall = np.where(present, hits / np.maximum(true, 1), 0).sum(-1) / number
    f1 = np.where(present, 2 * hits / np.maximum(true + hits + alarms, 1), 0).sum(-1) / number
    return {"accuracy": hits.sum(-1) / np.maximum(true.sum(-1), 1), "uar": recall, "macro_f1": f1}


def scores_of(outcomes: Outcomes, threshold: float | None = None) -> dict[str, float]:
    """n, accuracy, uar, macro_f1 of all answers together, and ece; with a threshold instead of accuracy and ece
    exact, the share of samples with all classes right."""
    found: dict[str, Any] = {"n": len(outcomes)}
    found |= {name: float(value) for name, value in from_counts(counts_of(outcomes, threshold)).items()}
    if threshold is None:
        return found | {"ece": expected_calibration_error(outcomes.labels, outcomes.probabilities, BINS)}
    del found["accuracy"]
    return found | {"exact": float(((outcomes.probabilities >= threshold) == outcomes.truths).all(axis=1).mean())}


def spread(outcomes: Outcomes, groups: np.ndarray, threshold: float | None = None) -> dict[str, Any]:
    """Mean and sample standard deviation of the scores of each group (fold, run), and of how many.

    Args:
        groups: (n,) numbers of groups.
    """
    each = [scores_of(outcomes.where(groups == group), threshold) for group in np.unique(groups)]
    found: dict[str, Any] = {"groups": len(each)}
    for name in each[0].keys() & {"accuracy", "uar", "macro_f1", "exact"}:
        values = np.array([one[name] for one in each])
        found[name] = {"mean": float(values.mean()), "sd": float(values.std(ddof=1)) if len(values) > 1 else None}
    return found


def bootstrap(
    outcomes: Outcomes, threshold: float | None = None, seed: int = 0, draws: int = DRAWS, level: float = 0.95
) -> dict[str, tuple[float, float]] | None:
    """Intervals of the scores by drawing people, with all their samples, anew with replacement (percentiles).

    People are what a data set is a sample of: the scans of one person are alike, and scans drawn one by one would give
    intervals that are too narrow. What another training would give is not in them.

    Returns:
        accuracy (without a threshold), uar, macro_f1 → (low, high); None for one person.
    """
    names, person = np.unique(np.array(outcomes.subjects), return_inverse=True)
    if len(names) < 2:
        return None
    tables = np.stack([counts_of(outcomes.where(person == number), threshold) for number in range(len(names))])
    rng = np.random.default_rng([seed, _BOOTSTRAP])
    weights = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
    drawn = from_counts(np.tensordot(weights, tables, axes=1))
    if threshold is not None:
        del drawn["accuracy"]
    tails = [50 * (1 - level), 50 * (1 + level)]
    return {name: tuple(float(v) for v in np.percentile(values, tails)) for name, values in drawn.items()}


def reliability(outcomes: Outcomes) -> list[dict[str, float]]:
    """Bins of confidence: low, high, n, mean confidence and accuracy; empty bins are left out."""
    confidence, right = outcomes.probabilities.max(axis=1), outcomes.right
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return [
        {
            "low": number / BINS, "high": (number + 1) / BINS, "n": int(here.sum()),
            "confidence": float(confidence[here].mean()), "accuracy": float(right[here].mean()),
        }
        for number in range(BINS)
        if (here := place == number).any()
    ]  # fmt: skip


def by_class(outcomes: Outcomes, threshold: float | None = None) -> list[dict[str, Any]]:
    """Of each class: n true samples, recall, precision and f1; None where there is nothing to divide by."""
    hits, alarms, misses = counts_of(outcomes, threshold).T
    true, said = hits + misses, hits + alarms
    return [
        {
            "class": name, "n": int(true[k]), "recall": _share(hits[k], true[k]),
            "precision": _share(hits[k], said[k]), "f1": _share(2 * hits[k], true[k] + said[k]) if true[k] else None,
        }
        for k, name in enumerate(outcomes.classes)
    ]  # fmt: skip


def by_intensity(outcomes: Outcomes) -> list[dict[str, Any]]:
    """Of each known intensity: n, and accuracy over all and by class; intensities are rounded to quarters."""
    levels = np.round(outcomes.intensity * 4) / 4
    rows = []
    for value in np.unique(levels[~np.isnan(levels)]):
        here = levels == value
        classes = {
            name: {"n": int(own.sum()), "accuracy": _share(outcomes.right[own].sum(), own.sum())}
            for k, name in enumerate(outcomes.classes)
            if (own := here & (outcomes.labels == k)).any()
        }
        accuracy = float(outcomes.right[here].mean())
        rows.append({"intensity": float(value), "n": int(here.sum()), "accuracy": accuracy, "classes": classes})
    return rows


def slices(outcomes: Outcomes, threshold: float | None = None, seed: int = 0) -> list[dict[str, Any]]:
    """Of each group of people that is named in the metadata: people, answers, scores and the interval of the UAR."""
    rows = []
    for key in sorted({key for known in outcomes.metadata for key in known}):
        values = np.array([known.get(key, "") for known in outcomes.metadata])
        for value in np.unique(values[values != ""]):
            part = outcomes.where(values == value)
            interval = bootstrap(part, threshold, seed)
            rows.append({
                "group": key, "value": str(value), "people": len(set(part.subjects)), **scores_of(part, threshold),
                "uar_interval": None if interval is None else interval["uar"],
            })  # fmt: skip
    return rows


def _share(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None
