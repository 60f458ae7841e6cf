"""Micro-expressions as action units: subtle, short and often on one side, in the five classes of 4DME.

Recipes after what micro-expression corpora annotate: negative (brow lowerer, upper lid tightener, lip depressor),
positive (lip corner puller, cheek raiser), surprise (brow raisers, upper lid raiser), repression (lips pressed,
dimpler, chin raiser: what holds another expression back) and others (movements without a clear feeling). A clip may
bear two classes: what is held back and the holding back, or surprise turning into a feeling.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from affectvlm.emotions import FOURDME

RECIPES: dict[str, tuple[Mapping[str, tuple[float, float, float]], ...]] = {
    "negative": (
        {"AU4": (0.6, 1, 1), "AU7": (0.2, 0.8, 0.6)},
        {"AU9": (0.5, 1, 1), "AU10": (0.3, 0.9, 0.5), "AU4": (0.2, 0.6, 0.4)},
        {"AU15": (0.6, 1, 1), "AU1": (0.3, 0.8, 0.5), "AU4": (0.3, 0.8, 0.5)},
        {"AU4": (0.5, 1, 1), "AU20": (0.3, 0.8, 0.5)},
    ),
    "positive": (
        {"AU12": (0.6, 1, 1), "AU6": (0.3, 1, 0.6)},
        {"AU12": (0.5, 1, 1), "AU25": (0.2, 0.5, 0.4)},
    ),
    "surprise": (
        {"AU1": (0.6, 1, 1), "AU2": (0.6, 1, 1), "AU5": (0.2, 0.8, 0.5)},
        {"AU5": (0.6, 1, 1), "AU1": (0.2, 0.7, 0.4), "AU25": (0.2, 0.6, 0.5)},
    ),
    "repression": (
        {"AU24": (0.6, 1, 1), "AU17": (0.3, 0.9, 0.7)},
        {"AU14": (0.6, 1, 1), "AU24": (0.2, 0.7, 0.4)},
        {"AU17": (0.6, 1, 1), "AU23": (0.3, 0.8, 0.5), "AU15": (0.2, 0.5, 0.3)},
    ),
    "others": (
        {"AU43": (0.3, 0.7, 1)},
        {"AU18": (0.5, 1, 1)},
        {"AU2L": (0.6, 1, 1)},
        {"AU26": (0.4, 0.9, 1), "AU25": (0.4, 0.9, 1)},
    ),
}
"""Class → ways to show it: action unit → (lowest, highest share of the strength, probability)."""

PAIRS = (("repression", "positive"), ("repression", "negative"), ("surprise", "positive"), ("surprise", "negative"))
"""Classes that occur together in one clip."""

STRENGTH = (0.15, 0.4)
"""Lowest and highest intensity of an action unit at the apex, of the 1 of a full expression."""

DURATION_S = (0.2, 0.5)
"""From onset to offset; half a second is where micro-expressions end by most definitions."""

ONE_SIDED = 0.5
"""Probability that one side of the face moves clearly less."""


def sample_micro(labels: Sequence[str], rng: np.random.Generator) -> dict[str, float]:
    """Action units at the apex of a micro-expression of one class or of several together.

    Raises:
        ValueError: no class, or an unknown one.
    """
    if not labels or set(labels) - set(FOURDME):
        raise ValueError(f"classes are {list(labels)}; some of {', '.join(FOURDME)} are needed")
    strength = rng.uniform(*STRENGTH)
    weaker, sides = rng.integers(2), (1.0, rng.uniform(0.0, 0.5) if rng.random() < ONE_SIDED else rng.uniform(0.8, 1.0))
    left, right = sides if weaker else sides[::-1]
    units: dict[str, float] = {}
    for label in labels:
        ways = RECIPES[label]
        for name, (low, high, share) in ways[rng.integers(len(ways))].items():
            if rng.random() >= share:
                continue
            value = strength * rng.uniform(low, high)
            if name[-1] in "LR":
                units[name] = max(units.get(name, 0.0), value)
                continue
            for side, factor in (("L", left), ("R", right)):
                units[name + side] = max(units.get(name + side, 0.0), value * factor)
    return units


def micro_timeline(fps: float, rng: np.random.Generator, still: int = 3) -> np.ndarray:
    """(T,) float64 in [0, 1]: the course of a micro-expression, quick up and slower down, between `still` frames of
    rest at both ends."""
    from affectvlm.synthesis.timing import timeline

    duration = rng.uniform(*DURATION_S)
    onset, apex = duration * rng.uniform(0.25, 0.4), duration * rng.uniform(0.05, 0.2)
    curve = timeline(onset, apex, duration - onset - apex, fps)
    return np.concatenate([np.zeros(still), curve, np.zeros(still)])
