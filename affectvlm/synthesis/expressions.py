"""Emotions as action units: several recipes for each, because people show one emotion in many ways.

After the tables of Ekman & Friesen (FACS, EMFACS). A recipe is a set of action units with a range of intensity and a
probability; drawing from it gives one face of that emotion. One fixed recipe an emotion would teach a model one face
an emotion.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from affectvlm.emotions import EKMAN

Recipe = Mapping[str, tuple[float, float, float]]
"""Action unit → (lowest intensity, highest intensity, probability of taking part)."""

RECIPES: dict[str, tuple[Recipe, ...]] = {
    "happy": (
        {"AU12": (0.6, 1, 1), "AU6": (0.3, 1, 0.75), "AU7": (0.1, 0.5, 0.2), "AU14": (0.1, 0.4, 0.15)},
        {"AU12": (0.6, 1, 1), "AU25": (0.4, 1, 1), "AU6": (0.3, 1, 0.8), "AU10": (0.1, 0.3, 0.2)},
        {
            "AU12": (0.6, 1, 1),
            "AU25": (0.5, 1, 1),
            "AU26": (0.3, 1, 1),
            "AU6": (0.4, 1, 0.9),
            "AU7": (0.1, 0.6, 0.4),
            "AU1": (0.1, 0.4, 0.15),
            "AU2": (0.1, 0.4, 0.15),
            "AU10": (0.1, 0.4, 0.2),
        },
        {"AU12": (0.5, 1, 1), "AU25": (0.2, 0.8, 0.3), "AU1": (0.1, 0.35, 0.2), "AU2": (0.1, 0.35, 0.2)},
        {"AU12": (0.5, 1, 1), "AU6": (0.4, 1, 0.9), "AU24": (0.1, 0.5, 0.5), "AU17": (0.1, 0.4, 0.3)},
        {
            "AU12": (0.7, 1, 1),
            "AU25": (0.6, 1, 1),
            "AU27": (0.2, 0.7, 1),
            "AU6": (0.5, 1, 1),
            "AU7": (0.3, 0.8, 0.6),
            "AU43": (0.2, 0.8, 0.4),
        },
    ),
    "angry": (
        {
            "AU4": (0.6, 1, 1),
            "AU7": (0.4, 1, 0.8),
            "AU5": (0.2, 0.8, 0.45),
            "AU23": (0.5, 1, 0.7),
            "AU24": (0.4, 1, 0.6),
            "AU17": (0.2, 0.7, 0.35),
        },
        {
            "AU4": (0.6, 1, 1),
            "AU7": (0.3, 1, 0.8),
            "AU5": (0.2, 0.8, 0.4),
            "AU10": (0.4, 1, 1),
            "AU16": (0.3, 1, 0.8),
            "AU25": (0.6, 1, 1),
            "AU26": (0.2, 0.9, 0.45),
            "AU9": (0.1, 0.5, 0.3),
            "AU20": (0.1, 0.4, 0.2),
        },
        {
            "AU4": (0.7, 1, 1),
            "AU5": (0.3, 0.9, 0.7),
            "AU7": (0.4, 1, 0.9),
            "AU23": (0.2, 0.6, 0.4),
            "AU15": (0.1, 0.35, 0.25),
        },
        {
            "AU4": (0.6, 1, 1),
            "AU7": (0.3, 1, 0.7),
            "AU22": (0.2, 0.6, 0.5),
            "AU25": (0.3, 0.9, 1),
            "AU23": (0.3, 0.8, 0.6),
            "AU26": (0.2, 0.6, 0.3),
            "AU9": (0.1, 0.4, 0.25),
        },
        {
            "AU4": (0.6, 1, 1),
            "AU7": (0.2, 0.8, 0.6),
            "AU5": (0.2, 0.8, 0.4),
            "AU10": (0.3, 0.9, 0.8),
            "AU16": (0.2, 0.8, 0.6),
            "AU25": (0.6, 1, 1),
            "AU27": (0.3, 0.8, 1),
            "AU9": (0.1, 0.5, 0.4),
            "AU20": (0.1, 0.5, 0.3),
        },
        {
            "AU4": (0.6, 1, 1),
            "AU7": (0.3, 1, 0.7),
            "AU24": (0.4, 1, 0.8),
            "AU18": (0.1, 0.5, 0.4),
            "AU23": (0.2, 0.8, 0.6),
        },
    ),
    "disgust": (
        {
            "AU9": (0.6, 1, 1),
            "AU15": (0.3, 0.9, 0.8),
            "AU16": (0.3, 0.9, 0.7),
            "AU4": (0.2, 0.7, 0.5),
            "AU25": (0.2, 0.7, 0.4),
            "AU6": (0.1, 0.6, 0.3),
            "AU7": (0.2, 0.7, 0.4),
        },
        {
            "AU10": (0.6, 1, 1),
            "AU17": (0.4, 1, 1),
            "AU4": (0.2, 0.7, 0.5),
            "AU9": (0.3, 1, 0.6),
            "AU7": (0.2, 0.7, 0.35),
        },
        {
            "AU9": (0.5, 1, 1),
            "AU10": (0.5, 1, 1),
            "AU16": (0.3, 1, 0.7),
            "AU25": (0.4, 1, 1),
            "AU26": (0.2, 0.8, 0.6),
            "AU4": (0.2, 0.6, 0.4),
            "AU6": (0.1, 0.6, 0.4),
        },
        {
            "AU9L": (0.6, 1, 1),
            "AU10L": (0.6, 1, 1),
            "AU9R": (0.0, 0.3, 0.5),
            "AU10R": (0.0, 0.3, 0.5),
            "AU4": (0.2, 0.6, 0.4),
            "AU17": (0.2, 0.7, 0.4),
            "AU7": (0.1, 0.6, 0.3),
        },
        {
            "AU9": (0.7, 1, 1),
            "AU10": (0.2, 0.7, 0.5),
            "AU4": (0.2, 0.7, 0.5),
            "AU7": (0.3, 0.8, 0.5),
            "AU17": (0.2, 0.6, 0.3),
        },
        {
            "AU9": (0.4, 1, 1),
            "AU10": (0.4, 1, 0.8),
            "AU15": (0.3, 1, 1),
            "AU4": (0.2, 0.7, 0.5),
            "AU7": (0.2, 0.8, 0.5),
            "AU17": (0.1, 0.6, 0.4),
        },
        {
            "AU10": (0.6, 1, 1),
            "AU25": (0.3, 0.9, 1),
            "AU9": (0.2, 0.7, 0.6),
            "AU4": (0.1, 0.5, 0.4),
            "AU43": (0.1, 0.4, 0.3),
        },
    ),
    "fear": (
        {
            "AU1": (0.6, 1, 1),
            "AU2": (0.4, 1, 0.85),
            "AU4": (0.35, 0.9, 0.95),
            "AU5": (0.5, 1, 1),
            "AU7": (0.1, 0.5, 0.4),
            "AU20": (0.5, 1, 1),
            "AU25": (0.3, 1, 0.9),
        },
        {
            "AU1": (0.6, 1, 1),
            "AU2": (0.4, 1, 0.85),
            "AU4": (0.4, 0.9, 1),
            "AU5": (0.5, 1, 1),
            "AU20": (0.4, 1, 0.9),
            "AU25": (0.4, 1, 1),
            "AU26": (0.2, 0.9, 1),
            "AU16": (0.1, 0.5, 0.3),
        },
        {
            "AU1": (0.7, 1, 1),
            "AU2": (0.3, 0.8, 0.7),
            "AU4": (0.5, 1, 1),
            "AU5": (0.4, 1, 1),
            "AU20": (0.3, 0.8, 0.6),
            "AU7": (0.2, 0.6, 0.4),
            "AU25": (0.2, 0.6, 0.5),
            "AU15": (0.1, 0.3, 0.2),
        },
        {
            "AU1": (0.6, 1, 1),
            "AU2": (0.4, 1, 0.8),
            "AU4": (0.3, 0.8, 0.8),
            "AU5": (0.6, 1, 1),
            "AU20": (0.3, 0.9, 0.9),
            "AU25": (0.5, 1, 1),
            "AU27": (0.3, 0.8, 1),
        },
        {
            "AU1": (0.6, 1, 1),
            "AU4": (0.3, 0.9, 0.9),
            "AU5": (0.5, 1, 1),
            "AU15": (0.2, 0.6, 0.8),
            "AU20": (0.3, 0.9, 0.8),
            "AU16": (0.1, 0.5, 0.4),
            "AU25": (0.2, 0.8, 0.6),
        },
    ),
    "sad": (
        {
            "AU1": (0.6, 1, 1),
            "AU4": (0.3, 0.9, 0.9),
            "AU15": (0.5, 1, 1),
            "AU17": (0.3, 0.9, 0.5),
            "AU43": (0.1, 0.45, 0.4),
        },
        {
            "AU1": (0.5, 1, 1),
            "AU4": (0.2, 0.8, 0.7),
            "AU15": (0.3, 0.9, 1),
            "AU20": (0.1, 0.5, 0.4),
            "AU43": (0.1, 0.5, 0.5),
            "AU25": (0.1, 0.5, 0.25),
        },
        {
            "AU1": (0.4, 1, 0.8),
            "AU15": (0.6, 1, 1),
            "AU17": (0.4, 1, 1),
            "AU43": (0.1, 0.4, 0.3),
            "AU4": (0.1, 0.6, 0.4),
        },
        {
            "AU1": (0.6, 1, 1),
            "AU4": (0.4, 1, 1),
            "AU6": (0.2, 0.6, 0.6),
            "AU7": (0.2, 0.7, 0.5),
            "AU15": (0.4, 1, 1),
            "AU17": (0.3, 0.9, 0.7),
            "AU20": (0.1, 0.5, 0.3),
            "AU25": (0.2, 0.7, 0.35),
        },
        {
            "AU1": (0.6, 1, 1),
            "AU4": (0.3, 1, 0.9),
            "AU15": (0.3, 0.9, 1),
            "AU10": (0.1, 0.5, 0.6),
            "AU25": (0.3, 0.8, 1),
            "AU20": (0.1, 0.6, 0.5),
            "AU43": (0.2, 1, 0.6),
            "AU6": (0.2, 0.7, 0.5),
        },
        {
            "AU15": (0.6, 1, 1),
            "AU17": (0.2, 0.8, 0.6),
            "AU1": (0.2, 0.7, 0.7),
            "AU24": (0.1, 0.5, 0.4),
            "AU43": (0.2, 0.6, 0.5),
        },
    ),
    "surprise": (
        {"AU1": (0.6, 1, 1), "AU2": (0.6, 1, 1), "AU5": (0.3, 1, 0.85), "AU25": (0.4, 1, 1), "AU26": (0.2, 1, 1)},
        {"AU1": (0.6, 1, 1), "AU2": (0.6, 1, 1), "AU5": (0.4, 1, 0.95), "AU25": (0.6, 1, 1), "AU27": (0.4, 1, 1)},
        {"AU1": (0.6, 1, 1), "AU2": (0.6, 1, 1), "AU5": (0.4, 1, 1), "AU25": (0.1, 0.7, 0.5), "AU18": (0.1, 0.4, 0.2)},
        {
            "AU5": (0.4, 1, 1),
            "AU1": (0.3, 0.8, 0.8),
            "AU2": (0.3, 0.8, 0.8),
            "AU26": (0.4, 1, 1),
            "AU22": (0.1, 0.4, 0.3),
        },
        {"AU1": (0.5, 1, 1), "AU2": (0.5, 1, 1), "AU25": (0.3, 1, 1), "AU26": (0.3, 1, 1), "AU5": (0.1, 0.5, 0.4)},
    ),
}

_NEUTRAL_UNITS = (
    "AU1",
    "AU2",
    "AU4",
    "AU6",
    "AU7",
    "AU9",
    "AU10",
    "AU12",
    "AU14",
    "AU15",
    "AU17",
    "AU20",
    "AU24",
    "AU25",
)
_UNEMOTIONAL: tuple[Recipe, ...] = (
    {"AU43": (0.3, 1, 1)},
    {"AU18": (0.3, 1, 1)},
    {"AU22": (0.3, 0.8, 1), "AU25": (0.2, 0.5, 0.5)},
    {"AU34": (0.4, 1, 1)},
    {"AU28": (0.4, 1, 1)},
    {"AU25": (0.2, 0.6, 1), "AU26": (0.1, 0.35, 0.6)},
    {"AU43L": (0.6, 1, 1)},
    {"AU43R": (0.6, 1, 1)},
    {"AU43": (0.85, 1, 1)},
    {"AU43": (0.85, 1, 1), "AU24": (0.1, 0.3, 0.4)},
)


def sample_expression(emotion: str, intensity: float, rng: np.random.Generator) -> dict[str, float]:
    """Action units of one way to show an emotion.

    Args:
        emotion: one of the six (emotions.EKMAN) or "neutral", which also covers blinking, talking and puckering faces.
        intensity: 0 (none) to 1 (full); scales every action unit.
        rng: draws the recipe, its parts, their strengths and a slight asymmetry.

    Raises:
        ValueError: unknown emotion, or intensity outside [0, 1].
    """
    if not 0 <= intensity <= 1:
        raise ValueError(f"intensity is {intensity}; 0 to 1 is needed")
    if emotion == "neutral":
        return _neutral(rng)
    if emotion not in RECIPES:
        raise ValueError(f"emotion {emotion!r} is unknown; one of {', '.join(EKMAN)} or neutral is needed")
    recipe = RECIPES[emotion][rng.integers(len(RECIPES[emotion]))]
    units = _draw(recipe, rng)
    if any(name.endswith("L") for name in units) and rng.random() < 0.5:
        units = {mirror(name): value for name, value in units.items()}
    return _noisy({name: value * intensity for name, value in units.items()}, rng)


def prototype(emotion: str, intensity: float = 1.0) -> dict[str, float]:
    """The textbook face of an emotion: its first recipe, likely parts only, at mid-range. Same every time."""
    if emotion == "neutral":
        return {}
    if emotion not in RECIPES:
        raise ValueError(f"emotion {emotion!r} is unknown; one of {', '.join(EKMAN)} or neutral is needed")
    likely = {name: part for name, part in RECIPES[emotion][_PROTOTYPE[emotion]].items() if part[2] >= 0.6}
    return {name: intensity * (low + 2 * high) / 3 for name, (low, high, _) in likely.items()}


_PROTOTYPE = {"happy": 1, "angry": 0, "disgust": 1, "fear": 0, "sad": 0, "surprise": 0}


def mirror(name: str) -> str:
    """ "AU9L" → "AU9R" and back; two-sided names stay."""
    return {"L": name[:-1] + "R", "R": name[:-1] + "L"}.get(name[-1], name)


def _draw(recipe: Recipe, rng: np.random.Generator) -> dict[str, float]:
    return {name: float(rng.uniform(low, high)) for name, (low, high, share) in recipe.items() if rng.random() < share}


def _noisy(units: dict[str, float], rng: np.random.Generator) -> dict[str, float]:
    """One side a little stronger, and a trace of something that does not belong: nobody moves like a table."""
    sided: dict[str, float] = {}
    for name, value in units.items():
        if name[-1] in "LR":
            sided[name] = min(value, 1.0)
            continue
        tilt = rng.normal(0, 0.10)
        sided[f"{name}L"] = float(np.clip(value * (1 + tilt), 0, 1))
        sided[f"{name}R"] = float(np.clip(value * (1 - tilt), 0, 1))
    for name in rng.choice(_NEUTRAL_UNITS, size=2, replace=False):
        if f"{name}L" not in sided and f"{name}R" not in sided and rng.random() < 0.5:
            sided[str(name)] = float(rng.uniform(0, 0.12))
    return sided


def _neutral(rng: np.random.Generator) -> dict[str, float]:
    units = {str(name): float(rng.uniform(0, 0.10)) for name in rng.choice(_NEUTRAL_UNITS, size=3, replace=False)}
    if rng.random() < 0.45:
        units |= _draw(_UNEMOTIONAL[rng.integers(len(_UNEMOTIONAL))], rng)
    return units
