"""A first pose from the landmarks that some data sets bring: Bosphorus `.lm3` labels, the 83 points of BU-3DFE
(named as `scan_io` names them), the 68-point scheme ("68-30").

Whether a data set says "left" from the subject's or the viewer's side is often not written down, so both readings are
tried and the one that fits a face is taken.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from affectvlm.pose.alignment import Similarity, umeyama

MEAN = {
    "eye outer": (44.6, 30.3, -44.7),
    "eye inner": (18.4, 28.5, -38.7),
    "nostril side": (17.0, -4.0, -22.0),
    "nose tip": (0.0, 0.0, 0.0),
    "subnasale": (0.0, -16.1, -15.0),
    "mouth corner": (25.3, -39.3, -28.8),
    "upper lip": (0.0, -28.9, -12.3),
    "lower lip": (0.0, -47.8, -15.2),
    "chin": (0.0, -72.0, -22.0),
}
"""Mean positions (mm, canonical); paired points on the subject's left (+x)."""

_STEADY = {"eye outer": 1.0, "eye inner": 1.0, "nostril side": 1.0, "nose tip": 1.0, "subnasale": 0.8}
_MOBILE = 0.2  # weight of points that move with the mouth
_BU83 = {
    "left eye 0": ("eye inner", 1), "left eye 4": ("eye outer", 1), "right eye 0": ("eye inner", -1),
    "right eye 4": ("eye outer", -1), "nose 3": ("nostril side", -1), "nose 8": ("nostril side", 1),
    "nose 6": ("subnasale", 0), "mouth 0": ("mouth corner", -1), "mouth 6": ("mouth corner", 1),
    "mouth 3": ("upper lip", 0), "mouth 9": ("lower lip", 0), "chin 7": ("chin", 0),
}  # fmt: skip
_POINTS68 = {
    36: ("eye outer", -1), 39: ("eye inner", -1), 42: ("eye inner", 1), 45: ("eye outer", 1), 30: ("nose tip", 0),
    33: ("subnasale", 0), 48: ("mouth corner", -1), 54: ("mouth corner", 1), 51: ("upper lip", 0), 57: ("lower lip", 0),
    8: ("chin", 0),
}  # fmt: skip
MIN_KNOWN = 4
MAX_MISFIT = 0.09
"""Of the distance from the eyes to the chin; above it the landmarks do not describe a face and are left aside."""


def known_landmarks(landmarks: Mapping[str, np.ndarray]) -> list[tuple[str, int, np.ndarray]]:
    """(name in MEAN, side, position (3,)) of each landmark whose meaning is known; side is +1 left, -1 right, 0
    middle."""
    tables = {**_BU83, **{f"68-{number}": meaning for number, meaning in _POINTS68.items()}}
    # A `.bnd` names all its points, most of which say nothing here: where a table knows some, it alone is asked.
    listed = [name for name in landmarks if name in tables]
    if len(listed) >= MIN_KNOWN:
        return [(*tables[name], np.asarray(landmarks[name], float)) for name in listed]
    found = [(_by_words(name), np.asarray(point, float)) for name, point in landmarks.items()]
    return [(*key, point) for key, point in found if key is not None]


def _by_words(name: str) -> tuple[str, int] | None:
    words = set(re.split(r"[^a-z]+", name.lower()))
    side = 1 if "left" in words else -1 if "right" in words else 0
    rules = (
        ({"outer", "eye", "corner"}, "eye outer"),
        ({"inner", "eye", "corner"}, "eye inner"),
        ({"mouth", "corner"}, "mouth corner"),
        ({"nose", "peak"}, "nostril side"),
        ({"nose", "tip"}, "nose tip"),
        ({"upper", "lip", "outer"}, "upper lip"),
        ({"lower", "lip", "outer"}, "lower lip"),
        ({"chin"}, "chin"),
    )
    for needed, meaning in rules:
        if needed <= words and (side != 0) == (MEAN[meaning][0] > 0):
            return meaning, side
    return None


def pose_from_landmarks(landmarks: Mapping[str, np.ndarray], scale: float | None) -> Similarity | None:
    """The similarity to the canonical frame (`scale` fixes the size), or None where too few landmarks are known or they
    do not lie like those of a face."""
    known = known_landmarks(landmarks)
    if len(known) < MIN_KNOWN or not all(np.isfinite(point).all() for *_, point in known):
        return None
    points = np.array([point for *_, point in known])
    weight = np.array([_STEADY.get(name, _MOBILE) for name, *_ in known])
    best, best_misfit = None, MAX_MISFIT * 100.0
    for mirror in (1, -1):
        target = np.array([np.array(MEAN[name]) * [mirror * (side or 1), 1, 1] for name, side, _ in known])
        transform = umeyama(points, target, weight, scale)
        misfit = float(np.sqrt((weight * ((transform.apply(points) - target) ** 2).sum(axis=1)).sum() / weight.sum()))
        if misfit < best_misfit:
            best, best_misfit = transform, misfit
    return best
