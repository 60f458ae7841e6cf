"""Pseudo-labels without labels: zero-shot guesses, clusters on the sphere, an assignment through the text; and scores.

A clustering round (II-F of the MultiviewVLM paper) goes:

    centre     where it is known which faces are of one person, the person is taken out of the features: a face is
               told from the same face with other expressions, not from the faces of others
    guess      softmax of scaled cosines of the aggregated features with the text bank
    balance    the guesses are made to take every class equally often (Sinkhorn): on faces of another source a bank
               prefers some classes wholesale, and an even prior removes that
    cluster    k-means on the sphere, from the balanced guesses and from k-means++ seeds
    assign     each cluster gets a class, each class equally many, by the best total similarity to the text bank
               (Hungarian method). Whatever lifts one class for all clusters alike drops out of that optimum
    combine    a sample's label maximises (share in clusters of the class) x (balanced guess of the class)
    select     of each class the most confident samples are kept

No function of the first part takes labels. The second part scores, with labels, and nothing of it is used in training.
Arrays in, arrays out; everything is drawn from the generator that is handed in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.special import log_softmax, logsumexp, softmax

NO_LABEL = -1
"""Of a sample that is not kept; as in `losses.multiview`."""

FEW_FACES = 4
"""A person with fewer faces than this says too little about what is theirs and what is an expression."""

_TINY = 1e-12


@dataclass(frozen=True)
class Clusters:
    """centres: (k, D) unit length; members: (n,) int64, the nearest centre of each sample; cohesion: mean cosine of the
    samples with their centres."""

    centres: np.ndarray
    members: np.ndarray
    cohesion: float


@dataclass(frozen=True)
class PseudoLabels:
    """What a clustering round gives.

    Attributes:
        rows: (n,) int64 rows of the text bank, for every sample; kept: (n,) bool, which of them are trained on.
        confidence: (n,) float64 in [0, 1]: posterior of the label.
        sizes: class row → samples with that label; kept_sizes: of them, how many are kept.
        cohesion: of the clusters, NaN where there are none.
        remarks: what was odd, in words.
    """

    rows: np.ndarray
    kept: np.ndarray
    confidence: np.ndarray
    sizes: Mapping[int, int]
    kept_sizes: Mapping[int, int]
    cohesion: float
    remarks: tuple[str, ...]

    @property
    def targets(self) -> np.ndarray:
        """(n,) int64: rows where kept, else NO_LABEL."""
        return np.where(self.kept, self.rows, NO_LABEL)

    @property
    def share(self) -> float:
        """Of samples kept."""
        return float(self.kept.mean())


def pseudo_labels(
    features: np.ndarray,
    bank: np.ndarray,
    scale: float,
    rng: np.random.Generator,
    rows: np.ndarray | None = None,
    cluster: bool = True,
    balance: bool = True,
    per_class: int = 2,
    restarts: int = 4,
    keep: float = 0.7,
    confidence: float = 0.0,
    dominance: float = 0.95,
    person: np.ndarray | None = None,
) -> PseudoLabels:
    """One round.

    Args:
        features: (n, D) aggregated features of unit length.
        bank: (K + R, D) text bank.
        scale: factor on cosines, as the model has it.
        rows: of the bank that may occur; None = all.
        cluster: False takes the (balanced) guesses themselves.
        balance: False takes the guesses as they are, and clusters without an even prior, of the whole or of a person.
        per_class: clusters for each class; an emotion has more than one face.
        restarts: k-means++ starts besides the one from the guesses.
        keep: share in (0, 1] of each class that is kept, its most confident samples.
        confidence: posterior from which a sample may be kept.
        dominance: share of plain guesses on one class from which the target is taken for one-sided: then neither the
            balance nor an assignment of each class makes sense, and the guesses stand as they are. 1 = never.
        person: (n,) whose face it is, see `centred`; None = not known.

    Raises:
        ValueError: no sample, shapes that do not fit, features that are not finite, or settings out of range.
    """
    _check(features, bank, keep, per_class)
    rows = np.arange(len(bank)) if rows is None else np.asarray(rows)
    features, own = features.astype(np.float64), bank[rows].astype(np.float64)
    logits = scale * features @ own.T
    guess = softmax(logits, axis=1)
    remarks = []
    top = np.bincount(guess.argmax(axis=1), minlength=len(rows)) / len(features)
    one_sided = len(rows) > 1 and dominance < 1 and top.max() >= dominance
    if one_sided:
        remarks.append(
            f"{100 * top.max():.0f} % of the faces look alike to the text (row {rows[top.argmax()]}): taken as they "
            "are, without clusters or balance"
        )
    elif balance and len(rows) > 1:
        if person is not None:
            features = centred(features, own, person, guess.argmax(axis=1), dominance)
            logits = scale * features @ own.T
        guess = balanced(logits)
    wanted = per_class * len(rows)
    posterior, cohesion = guess, float("nan")
    if cluster and not one_sided and len(rows) > 1:
        distinct = len(np.unique(features.round(9), axis=0))
        if distinct < wanted:
            remarks.append(f"{distinct} different faces for {wanted} clusters: labelled without clusters")
        else:
            posterior, cohesion = _clustered(features, own, guess, scale, per_class, restarts, rng)
    label, sure = posterior.argmax(axis=1), posterior.max(axis=1)
    kept = most_confident(label, sure, keep, len(rows)) & (sure >= confidence)
    if not kept.any():
        remarks.append(f"no face is labelled with a confidence of {confidence:g} or more")
    counts = np.bincount(label, minlength=len(rows)), np.bincount(label[kept], minlength=len(rows))
    sizes, kept_sizes = ({int(row): int(n) for row, n in zip(rows, count, strict=True)} for count in counts)
    return PseudoLabels(rows[label], kept, sure, sizes, kept_sizes, cohesion, tuple(remarks))


def centred(
    features: np.ndarray, bank: np.ndarray, person: np.ndarray, guess: np.ndarray, dominance: float = 1.0
) -> np.ndarray:
    """(n, D) features of unit length without what is the person's own: x - mean of the person + mean of the bank.

    It rests on people showing various classes, as `balanced` does on the whole target. So people are left as they are
    who have fewer than FEW_FACES faces, or whose plain guesses are to a share of `dominance` one class.

    Args:
        features: (n, D) of unit length; bank: (K, D) rows that may occur.
        person: (n,) int, the same number for faces of one person; below 0 = not known.
        guess: (n,) int, what the plain features are taken for.
    """
    result = np.array(features, np.float64)
    for number in np.unique(person[person >= 0]):
        own = np.flatnonzero(person == number)
        if len(own) < FEW_FACES or np.bincount(guess[own]).max() >= dominance * len(own):
            continue
        result[own] += bank.mean(axis=0) - result[own].mean(axis=0)
    return _unit(result)


def balanced(logits: np.ndarray, iterations: int = 50) -> np.ndarray:
    """(n, K) probabilities whose classes have equal mass: softmax of logits + row and column offsets (Sinkhorn & Knopp;
    Cuturi, NeurIPS 2013). A class that all samples like drops by as much."""
    logs = log_softmax(np.asarray(logits, np.float64), axis=1)
    even = np.log(logs.shape[0] / logs.shape[1])
    for _ in range(iterations):
        logs = logs - logsumexp(logs, axis=0, keepdims=True) + even
        logs = logs - logsumexp(logs, axis=1, keepdims=True)
    return np.exp(logs)


def spherical_kmeans(
    features: np.ndarray, k: int, rng: np.random.Generator, start: np.ndarray | None = None, iterations: int = 100
) -> Clusters:
    """k-means with cosines: centres are normalised sums of their members (Dhillon & Modha, 2001).

    Args:
        features: (n, D) of unit length.
        start: (k, D) first centres; None seeds them by k-means++ (Arthur & Vassilvitskii, 2007) on 1 - cosine.
        iterations: at most; it ends as soon as no sample moves.

    A cluster that loses all members starts again at the sample that fits its own centre worst.

    Raises:
        ValueError: fewer samples than clusters.
    """
    if not 1 <= k <= len(features):
        raise ValueError(f"{len(features)} samples for {k} clusters; at least one for each is needed")
    centres = _seeds(features, k, rng) if start is None else _unit(np.asarray(start, np.float64))
    members = None
    for _ in range(iterations):
        cosines = features @ centres.T
        found = _no_empty(cosines)
        if members is not None and (found == members).all():
            break
        members = found
        sums = np.zeros_like(centres)
        np.add.at(sums, members, features)
        moved = np.linalg.norm(sums, axis=1) > _TINY  # opposite members cancel: such a centre stays where it was
        centres = np.where(moved[:, None], _unit(sums), centres)
    cosines = features @ centres.T
    members = _no_empty(cosines)
    return Clusters(centres, members, float(cosines[np.arange(len(features)), members].mean()))


def assign(similarity: np.ndarray, per_class: int = 1) -> np.ndarray:
    """The class of each cluster, every class `per_class` times, with the highest total similarity.

    Args:
        similarity: (per_class * K, K) of clusters and classes.

    Returns:
        (per_class * K,) int64.
    """
    clusters, columns = linear_sum_assignment(-np.repeat(similarity, per_class, axis=1))
    classes = np.empty(len(similarity), np.int64)
    classes[clusters] = columns // per_class
    return classes


def most_confident(labels: np.ndarray, confidence: np.ndarray, share: float, classes: int) -> np.ndarray:
    """(n,) bool: of each class its most confident samples, `share` of them and one at least; ties in their order."""
    kept = np.zeros(len(labels), bool)
    for label in range(classes):
        members = np.flatnonzero(labels == label)
        order = members[np.argsort(-confidence[members], kind="stable")]
        kept[order[: int(np.ceil(share * len(order)))]] = True
    return kept


def clustering_accuracy(labels: np.ndarray, members: np.ndarray) -> float:
    """Share of samples that are right when every cluster is named by the best one-to-one matching with the classes.

    Args:
        labels: (n,) true classes. members: (n,) clusters; any integers, clusters beyond the classes stay unmatched.
    """
    _, true = np.unique(labels, return_inverse=True)
    _, found = np.unique(members, return_inverse=True)
    table = np.zeros((found.max() + 1, true.max() + 1), np.int64)
    np.add.at(table, (found, true), 1)
    matched = linear_sum_assignment(-table)
    return float(table[matched].sum() / len(labels))


def linear_probe(
    train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, classes: int, ridge: float = 0.1
) -> np.ndarray:
    """(m, classes) float64 scores of a ridge classifier on frozen features: what a straight line can read out of them.

    Features are standardised by the training part; the targets are one-hot, each class weighing the same.

    Args:
        train: (n, D), train_labels: (n,) in [0, classes), of some subjects. test: (m, D), of others.
        ridge: added to the diagonal of the correlation matrix, > 0.

    Raises:
        ValueError: no sample to fit on.
    """
    if not len(train):
        raise ValueError("no sample to fit a linear probe on; one at least is needed")
    mean, spread = train.mean(axis=0), train.std(axis=0) + 1e-6
    x = (train - mean).astype(np.float64) / spread
    counts = np.bincount(train_labels, minlength=classes)
    weight = 1.0 / (np.maximum(counts, 1) * (counts > 0).sum())[train_labels]
    target = np.eye(classes)[train_labels] - (counts > 0) / max((counts > 0).sum(), 1)
    gram = (x * weight[:, None]).T @ x + ridge * np.eye(x.shape[1])
    solution = np.linalg.solve(gram, (x * weight[:, None]).T @ target)
    scores = (test - mean).astype(np.float64) / spread @ solution
    return np.where(counts > 0, scores, -np.inf)  # a class without an example is never said


def _clustered(
    features: np.ndarray, bank: np.ndarray, guess: np.ndarray, scale: float, per_class: int, restarts: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, float]:  # fmt: skip
    """Posterior (n, K) of clusters and guesses together, and the cohesion of the clusters.

    Of the starts the one is taken whose classes agree best with the guesses: the tightest clusters may well be those of
    people or of views.
    """
    k = per_class * bank.shape[0]
    starts: list[np.ndarray | None] = [_from_guesses(features, guess, per_class, rng), *[None] * restarts]
    best: tuple[float, np.ndarray, float] | None = None
    for start in starts:
        clusters = spherical_kmeans(features, k, rng, start)
        similarity = np.stack([np.log(guess[clusters.members == j] + _TINY).mean(axis=0) for j in range(k)])
        classes = assign(similarity, per_class)
        fit = float(np.log(guess[np.arange(len(guess)), classes[clusters.members]] + _TINY).mean())
        if best is None or fit > best[0]:
            near = softmax(scale * features @ clusters.centres.T, axis=1)
            by_class = near @ np.eye(bank.shape[0])[classes]
            best = fit, by_class, clusters.cohesion
    _, by_class, cohesion = best
    posterior = by_class * guess
    return posterior / np.maximum(posterior.sum(axis=1, keepdims=True), _TINY), cohesion


def _from_guesses(
    features: np.ndarray, guess: np.ndarray, per_class: int, rng: np.random.Generator
) -> np.ndarray:  # fmt: skip
    """(per_class * K, D) first centres: means of the features, weighted by the guess of each class; several of a class
    are drawn apart by random weights."""
    weights = np.repeat(guess, per_class, axis=1)
    if per_class > 1:
        weights = weights * rng.exponential(size=weights.shape) ** 2
    centres = weights.T @ features
    short = np.linalg.norm(centres, axis=1) <= _TINY
    centres[short] = features[rng.integers(len(features), size=int(short.sum()))]
    return _unit(centres)


def _seeds(features: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    chosen = [int(rng.integers(len(features)))]
    nearest = features @ features[chosen[0]]
    for _ in range(k - 1):
        distance = np.maximum(1.0 - nearest, 0.0)
        distance[chosen] = 0.0
        total = distance.sum()
        if total > _TINY:
            place = int(rng.choice(len(features), p=distance / total))
        else:  # all others are copies of what is chosen
            place = int(rng.choice(np.setdiff1d(np.arange(len(features)), chosen)))
        chosen.append(place)
        nearest = np.maximum(nearest, features @ features[place])
    return features[chosen].astype(np.float64)


def _no_empty(cosines: np.ndarray) -> np.ndarray:
    """The nearest centre of each sample; an empty cluster takes the sample that fits its own centre worst."""
    members = cosines.argmax(axis=1)
    fits = cosines[np.arange(len(cosines)), members].copy()
    sizes = np.bincount(members, minlength=cosines.shape[1])
    for cluster in np.flatnonzero(sizes == 0):
        worst = int(np.where(sizes[members] > 1, fits, np.inf).argmin())
        sizes[members[worst]] -= 1
        members[worst], fits[worst], sizes[cluster] = cluster, np.inf, 1
    return members


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), _TINY)


def _check(features: np.ndarray, bank: np.ndarray, keep: float, per_class: int) -> None:
    if features.ndim != 2 or not len(features) or bank.ndim != 2 or features.shape[1] != bank.shape[1]:
        raise ValueError(f"features are {features.shape}, the bank {bank.shape}; (n, D) and (K, D) are needed")
    if not np.isfinite(features).all():
        raise ValueError("features hold NaN or infinite numbers; finite ones are needed")
    if not 0 < keep <= 1 or per_class < 1:
        raise ValueError(f"keep is {keep}, per_class {per_class}; a share above 0 and 1 or more are needed")
