"""MakeHuman faces (assets CC0), packed as one .npz, with expressions put together by hand.

Used to measure only, and apart from `affectvlm.synthesis.makehuman`, which training draws from: its expression units
are its own authors' work, not action units; EMOTIONS combines them by hand, after looking at each one, into what a
person would call that emotion. The shipped models up to the fourth saw nothing of this family; the fifth saw its people
moved by action units, and none of these combinations.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from affectvlm.scan import Scan

_CM_TO_MM = 10.0


class MakeHumanFace:
    """Identities and expressions of the packed MakeHuman head."""

    name = "makehuman"

    def __init__(self, path: str | Path) -> None:
        with np.load(path, allow_pickle=False) as pack:
            self._base = pack["vertices"].astype(np.float32) * _CM_TO_MM
            self._faces = pack["triangles"].astype(np.int32)
            self._identity = pack["identity"].astype(np.float32) * _CM_TO_MM
            self._modifiers = pack["modifiers"].astype(np.float32) * _CM_TO_MM
            self._modifier_names = [str(n) for n in pack["modifier_names"]]
            self.units = {
                str(n): u.astype(np.float32) * _CM_TO_MM for n, u in zip(pack["unit_names"], pack["units"], strict=True)
            }
            self._part = pack["part"]
        skin = self._part == 0
        middle = skin & (np.abs(self._base[:, 0]) < 5)
        self._tip = int(np.flatnonzero(middle)[np.argmax(self._base[middle, 2])])

    def sample_identity(self, rng: np.random.Generator) -> np.ndarray:
        """(V, 3) float32 offset: a mixture of two of the 36 people, and a few face modifiers."""
        first, second = rng.choice(len(self._identity), 2, replace=False)
        share = rng.uniform(0, 0.5)
        offset = (1 - share) * self._identity[first] + share * self._identity[second]
        for modifier in rng.choice(len(self._modifiers), 12, replace=False):
            offset = offset + rng.uniform(0, 0.35) * self._modifiers[modifier]
        return offset.astype(np.float32)

    def express(self, identity: np.ndarray, units: dict[str, float]) -> Scan:
        """The face with expression units (name, or name without left/right for both sides → weight), nose tip at the
        origin."""
        vertices = self._base + identity
        origin = vertices[self._tip].copy()
        for name, weight in units.items():
            names = (
                [name]
                if name in self.units
                else [
                    name.replace("eye-", "eye-left-")
                    .replace("eyebrows-", "eyebrows-left-")
                    .replace("nose-", "nose-left-")
                ]
            )
            if name not in self.units:
                names.append(names[0].replace("-left-", "-right-"))
            for unit in names:
                vertices = vertices + weight * self.units[unit]
        return Scan(vertices - origin, self._faces, source="MakeHuman")


EMOTIONS: dict[str, tuple[dict[str, float], ...]] = {
    "happy": (
        {"mouth-corner-puller": 0.9, "eye-slit": 0.3},
        {"mouth-upward-retraction": 1.0},
        {"mouth-corner-puller": 0.6, "mouth-upward-retraction": 0.5, "mouth-open": 0.25, "eye-slit": 0.3},
    ),
    "angry": (
        {"eyebrows-down": 1.0, "eye-slit": 0.35, "nose-dilatation": 0.8, "mouth-pursing": 0.25},
        {"eyebrows-down": 1.0, "mouth-part-later": 0.8, "nose-elevation": 0.3},
        {"eyebrows-down": 1.0, "eye-opened-up": 0.5, "mouth-retraction": 0.35, "nose-dilatation": 1.0},
    ),
    "disgust": (
        {"nose-elevation": 1.0, "mouth-elevation": 0.5, "eyebrows-down": 0.4, "eye-slit": 0.3},
        {"nose-elevation": 1.0, "nose-compression": 0.5, "mouth-depression": 0.6, "eye-slit": 0.4},
    ),
    "fear": (
        {
            "eyebrows-inner-up": 1.0,
            "eyebrows-up": 0.4,
            "eye-opened-up": 1.0,
            "neck-platysma": 0.7,
            "mouth-parling": 0.6,
        },
        {"eyebrows-inner-up": 1.0, "eye-opened-up": 1.0, "mouth-depression-retraction": 0.6, "mouth-retraction": 0.5},
    ),
    "sad": (
        {"eyebrows-inner-up": 1.0, "mouth-depression": 1.0, "eye-closure": 0.25},
        {"eyebrows-inner-up": 1.0, "eyebrows-down": 0.3, "mouth-depression": 0.8, "eye-slit": 0.2},
    ),
    "surprise": (
        {
            "eyebrows-up": 1.0,
            "eyebrows-extern-up": 0.7,
            "eyebrows-inner-up": 0.7,
            "eye-opened-up": 0.8,
            "mouth-open": 0.6,
        },
        {
            "eyebrows-up": 1.0,
            "eyebrows-inner-up": 0.7,
            "eye-opened-up": 1.0,
            "mouth-protusion": 0.4,
            "mouth-open": 0.25,
        },
    ),
    "neutral": ({},),
}
"""Emotion → ways to show it, as weights of MakeHuman's expression units at full intensity."""


def sample_units(emotion: str, intensity: float, rng: np.random.Generator) -> dict[str, float]:
    """One way to show an emotion, each unit 15 % (standard deviation) more or less, scaled by intensity in [0, 1]."""
    ways = EMOTIONS[emotion]
    way = ways[rng.integers(len(ways))]
    return {name: float(np.clip(weight * intensity * rng.normal(1, 0.15), 0, 1.1)) for name, weight in way.items()}
