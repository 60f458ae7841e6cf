"""What every face model offers: identities to sample, and a scan for an identity with action units."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from affectvlm.scan import Scan


class FaceModel(Protocol):
    """A generator of faces.

    Action units are named as in FACS: "AU12" on both sides, "AU12L" or "AU12R" on the subject's left or right alone,
    with an intensity in [0, 1]. What a model does not know, it ignores (`action_units` lists what it knows).
    """

    name: str
    action_units: tuple[str, ...]

    def sample_identity(self, rng: np.random.Generator, spread: float = 1.0) -> Any:
        """A new person; the result is only meaningful to this model, and equal for equal generators.

        `spread` scales how far a person lies from the average: 1 is the model's own distribution.
        """

    def generate(self, identity: Any, action_units: Mapping[str, float]) -> Scan:
        """That person's face with those action units, in the canonical frame, with a colour per vertex."""


def sided(action_units: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """{"AU12": 0.8, "AU4L": 1} → {"AU12": (0.8, 0.8), "AU4": (1, 0)}: intensity on the subject's left and right.

    A one-sided entry adds to its two-sided one; the sum is cut at 1.

    Raises:
        ValueError: a name that is not AU + number (+ L or R), or an intensity outside [0, 1].
    """
    sides: dict[str, list[float]] = {}
    for name, value in action_units.items():
        base = name.rstrip("LR")
        if not (base.startswith("AU") and base[2:].isdigit() and len(name) - len(base) <= 1):
            raise ValueError(f"action unit {name!r} is not AU and a number, with L or R for one side (AU12, AU12L)")
        if not 0 <= value <= 1:
            raise ValueError(f"intensity of {name} is {value}; 0 to 1 is needed")
        left, right = sides.setdefault(base, [0.0, 0.0])
        side = name[len(base) :]
        sides[base] = [left + value * (side != "R"), right + value * (side != "L")]
    return {base: (min(left, 1.0), min(right, 1.0)) for base, (left, right) in sides.items()}
