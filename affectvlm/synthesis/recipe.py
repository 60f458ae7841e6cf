"""A face of our own making as a handful of numbers: who it is, and what each muscle does. What the explorer turns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np

from affectvlm.scan import Scan
from affectvlm.synthesis.action_units import UNITS
from affectvlm.synthesis.base import FaceModel
from affectvlm.synthesis.expressions import prototype
from affectvlm.synthesis.procedural.identity import FaceIdentity, sample_identity


@dataclass(frozen=True)
class FaceRecipe:
    """A person and an expression. Equal recipes give equal faces.

    Attributes:
        seed: of the person: bones, features, colours.
        sex, age, build: in place of what the seed would give; None = the seed's own. Years 16 to 85; build from about
            -2 (slim) to 2 (heavy).
        units: action unit → intensity above 0, up to 1; both sides of the face move alike.

    Raises:
        ValueError: an unknown action unit, or an intensity outside 0 to 1.
    """

    seed: int = 0
    sex: str | None = None
    age: float | None = None
    build: float | None = None
    units: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in self.units.items():
            if name not in UNITS or not 0 <= value <= 1:
                raise ValueError(f"action unit {name!r} at {value}; one of {', '.join(UNITS)} at 0 to 1 is needed")
        ordered = {name: float(self.units[name]) for name in UNITS if self.units.get(name, 0) > 0}
        object.__setattr__(self, "units", MappingProxyType(ordered))

    @property
    def key(self) -> str:
        """All of it in a line of text: what results are kept by."""
        units = ",".join(f"{name}={value:.4f}" for name, value in self.units.items())
        return f"{self.seed}:{self.sex}:{self.age}:{self.build}:{units}"

    def person(self) -> FaceIdentity:
        """Who it is; age, sex and build as the face shows them."""
        return sample_identity(np.random.default_rng(self.seed), sex=self.sex, age=self.age, build=self.build)

    def scan(self, model: FaceModel) -> Scan:
        """The face in the canonical frame, made by the procedural model."""
        return model.generate(self.person(), self.units)

    def with_unit(self, name: str, value: float) -> FaceRecipe:
        """One action unit set to an intensity, the others as they are."""
        return replace(self, units={**self.units, name: value})

    def posing(self, emotion: str, intensity: float = 1.0) -> FaceRecipe:
        """The same person with the textbook face of an emotion, or "neutral"; nothing of the old expression stays."""
        return replace(self, units=prototype(emotion, intensity))
