"""`EmotionCurve`: the emotions of a sequence frame by frame, smoothed, with onset, apex and offset of the expression.

* Smoothing: a Gaussian over time, SIGMA frames wide, of those that were looked at (normalised at the ends; frames that
  were left out leave a gap in time, not in the curve).
* Strength of the expression: the smoothed probability of one emotion above chance, s_t = (p_t - 1/K) / (1 - 1/K), at
  least 0. A neutral face is answered flat, so s is near 0 there.
* Apex: the frame of the greatest s; of a plateau (all within PLATEAU of it, relatively, and connected), its middle.
  There is none where s stays below LEAST_APEX: then nothing was expressed.
* Onset and offset: with the base b, the least s before (after) the apex, the first (last) frame of the connected
  stretch about the apex in which s >= b + EDGE (s_apex - b). There is no onset (offset) where the expression is there
  from the first (to the last) frame, or where it rose (falls) by less than LEAST_RISE of the apex.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

SIGMA = 1.5
EDGE = 0.3
PLATEAU = 0.1
LEAST_APEX = 0.25
LEAST_RISE = 0.3


@dataclass(frozen=True, eq=False)
class EmotionCurve:
    """Emotions over time.

    Attributes:
        classes: K names.
        emotion: the one whose onset, apex and offset are given.
        frames: (T,) int64 numbers of the frames, as the files have them, rising.
        times: (T,) float64 seconds from the first frame of the sequence, or None where they are not known.
        raw: (T, K) float64 probabilities of each frame; rows sum to 1.
        smoothed: the same, smoothed over time.
        expressiveness: (T,) float64, 0 to 1: 1 less what the rejection rows ("neutral", "no face") have; not smoothed.
        onset, apex, offset: indices into the T frames, or None where there is none (see the module's text).
    """

    classes: tuple[str, ...]
    emotion: str
    frames: np.ndarray
    times: np.ndarray | None
    raw: np.ndarray
    smoothed: np.ndarray
    expressiveness: np.ndarray
    onset: int | None
    apex: int | None
    offset: int | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it: lists, and one list of probabilities a class."""

        def by_class(rows: np.ndarray) -> dict[str, list[float]]:
            return {name: column.tolist() for name, column in zip(self.classes, rows.T, strict=True)}

        return {
            "emotion": self.emotion,
            "frames": self.frames.tolist(),
            "times": None if self.times is None else self.times.tolist(),
            "raw": by_class(self.raw),
            "smoothed": by_class(self.smoothed),
            "expressiveness": self.expressiveness.tolist(),
            "onset": self.onset,
            "apex": self.apex,
            "offset": self.offset,
        }


def emotion_curve(
    classes: Sequence[str],
    emotion: str,
    frames: np.ndarray,
    probabilities: np.ndarray,
    expressiveness: np.ndarray,
    times: np.ndarray | None = None,
    sigma: float = SIGMA,
) -> EmotionCurve:
    """The curve of frames in the order of time.

    Args:
        classes: K names; emotion: one of them, whose phases are looked for.
        frames: (T,) numbers, rising; probabilities: (T, K), rows sum to 1; expressiveness: (T,); times: (T,) seconds.
        sigma: standard deviation of the smoothing, in the usual (median) distances of frames; 0 smooths nothing.

    Raises:
        ValueError: no frames, shapes that do not fit, an unknown emotion, or frame numbers that do not rise.
    """
    frames, raw = np.asarray(frames, np.int64), np.asarray(probabilities, np.float64)
    expressiveness = np.asarray(expressiveness, np.float64)
    times = None if times is None else np.asarray(times, np.float64)
    shapes = [frames.shape, raw.shape, expressiveness.shape, None if times is None else times.shape]
    count = len(frames)
    if not count or shapes != [(count,), (count, len(classes)), (count,), None if times is None else (count,)]:
        raise ValueError(f"frames, probabilities, expressiveness, times are {shapes}; T, T x K, T, T are needed")
    if emotion not in classes:
        raise ValueError(f"emotion is {emotion!r}; one of {', '.join(classes)} is needed")
    if not sigma >= 0:
        raise ValueError(f"sigma is {sigma}; 0 or more is needed")
    if (np.diff(frames) <= 0).any():
        raise ValueError("the frame numbers do not rise; frames in the order of time are needed")
    smoothed = smooth(frames, raw, sigma)
    chance = 1 / len(classes)
    above = smoothed[:, list(classes).index(emotion)] - chance
    strength = np.maximum(above, 0) / max(1 - chance, 1e-9)  # of a single class nothing is ever above chance
    return EmotionCurve(tuple(classes), emotion, frames, times, raw, smoothed, expressiveness, *phases(strength))


def smooth(at: np.ndarray, values: np.ndarray, sigma: float = SIGMA) -> np.ndarray:
    """Gaussian mean of values (T, ...) over positions (T,), sigma in median distances of these; weights sum to 1."""
    at = np.asarray(at, np.float64)
    if len(at) < 2 or sigma == 0:
        return np.array(values, np.float64)
    place = (at - at[0]) / (np.median(np.diff(at)) * sigma)
    result = np.empty(np.shape(values), np.float64)
    for row in range(len(at)):  # a row at a time: T x T weights would grow with the square of the length
        near = slice(*np.searchsorted(place, (place[row] - 5, place[row] + 5)))
        weight = np.exp(-((place[near] - place[row]) ** 2) / 2)
        result[row] = np.tensordot(weight / weight.sum(), values[near], axes=1)
    return result


def phases(strength: np.ndarray) -> tuple[int | None, int | None, int | None]:
    """(onset, apex, offset) of the strength (T,) of an expression over time; see the module's text."""
    strength = np.asarray(strength, np.float64)
    peak = int(strength.argmax())
    most = float(strength[peak])
    if most < LEAST_APEX:
        return None, None, None
    low, high = _stretch(strength >= (1 - PLATEAU) * most, peak)
    return _edge(strength, peak, most), (low + high) // 2, _edge(strength[::-1], len(strength) - 1 - peak, most, True)


def _edge(strength: np.ndarray, peak: int, most: float, backwards: bool = False) -> int | None:
    """The first frame of the rise to the peak; with time reversed, the last of the fall."""
    base = float(strength[: peak + 1].min())
    if most - base < LEAST_RISE * most:
        return None
    first, _ = _stretch(strength >= base + EDGE * (most - base), peak)
    if first == 0:
        return None
    return len(strength) - 1 - first if backwards else first


def _stretch(mask: np.ndarray, inside: int) -> tuple[int, int]:
    """First and last index of the connected run of True about one that is True."""
    holes = np.flatnonzero(~mask)
    before, after = holes[holes < inside], holes[holes > inside]
    return int(before[-1]) + 1 if len(before) else 0, int(after[0]) - 1 if len(after) else len(mask) - 1
