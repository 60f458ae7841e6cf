"""What face models without a texture are painted with: skin, lips, brows and eyes."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

SCLERA, PUPIL, TEETH, TONGUE = (228, 224, 220), (12, 12, 12), (232, 226, 210), (165, 85, 85)
"""uint8 RGB of what is alike in everybody."""

_PALE, _DARK = np.array([236, 192, 165.0]), np.array([82, 52, 38.0])
_IRISES = ((70, 45, 25), (45, 75, 100), (60, 85, 60), (35, 25, 18))
_IRIS_DEGREES = 28


def sample_colours(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(3,) uint8 RGB of skin, lips, brows and iris of one person; every tone of skin is drawn."""
    tone = rng.beta(1.2, 1.2)
    skin = (1 - tone) * _PALE + tone * _DARK
    skin = np.clip(skin * rng.uniform(0.9, 1.1) * rng.normal(1, 0.03, 3), 30, 250)
    lips = np.clip(skin * [0.86, 0.62, 0.62] * rng.normal(1, 0.06, 3), 20, 250)
    brows = np.clip(rng.uniform(0.15, 0.6) * np.array([110, 85, 60.0]) * rng.normal(1, 0.1, 3), 5, 200)
    iris = np.array(_IRISES[rng.integers(4)])
    return tuple(np.asarray(colour, np.uint8) for colour in (skin, lips, brows, iris))


def gaze_angle(points: np.ndarray, eyeballs: Iterable[np.ndarray]) -> np.ndarray:
    """(V,) degrees between a vertex of an eyeball and straight ahead, seen from the eyeball's centre; 180 elsewhere.

    Args:
        points: (V, 3); eyeballs: (V,) bool each.
    """
    angle = np.full(len(points), 180.0)
    for mask in eyeballs:
        own = points[mask]
        direction = own - (own.min(axis=0) + own.max(axis=0)) / 2
        angle[mask] = np.degrees(np.arccos(direction[:, 2] / np.linalg.norm(direction, axis=1)))
    return angle


def paint_eyes(colors: np.ndarray, angle: np.ndarray, iris: np.ndarray, pupil_degrees: float = 12) -> None:
    """White, iris and pupil onto the eyeballs of (V, 3) colours, in place; `angle` is of `gaze_angle`."""
    for degrees, colour in ((179, SCLERA), (_IRIS_DEGREES, iris), (pupil_degrees, PUPIL)):
        colors[angle < degrees] = colour
