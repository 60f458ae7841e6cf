"""What a `Predictor` gathers on the way to a `Prediction`: the model's word on one face or many, and the time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from affectvlm.rendering import Buffers
    from affectvlm.sequences import FrontalFrame


@dataclass(frozen=True, eq=False)
class Answer:
    """Of all views: class probabilities (K,), rejection masses (R,); of each view: (N, K), and whether it is there."""

    classes: np.ndarray
    views: np.ndarray
    rejected: np.ndarray
    present: np.ndarray

    def doubted(self, share: float, row: int) -> Answer:
        """With `share` of everything given to one rejection row."""

        def flat(shares: np.ndarray) -> np.ndarray:
            return (1 - share) * shares + share / shares.shape[-1]

        rejected = (1 - share) * self.rejected
        rejected[row] += share
        return replace(self, classes=flat(self.classes), views=flat(self.views), rejected=rejected)


class Look(NamedTuple):
    """One face as drawn, what the model says of it, and whether its pose is doubtful."""

    answer: Answer
    buffers: Buffers
    inputs: np.ndarray
    doubtful: bool


class Looks:
    """The answers of a sequence; of pictures and meshes only those of its most expressive frame are kept."""

    def __init__(self) -> None:
        self.indices: list[int] = []
        self.numbers: list[int] = []
        self.answers: list[Answer] = []
        self.peak: tuple[FrontalFrame, Look] | None = None
        self._most = -1.0

    def add(self, face: FrontalFrame, look: Look) -> None:
        self.indices.append(face.index)
        self.numbers.append(face.number)
        self.answers.append(look.answer)
        weight = 1.0 - float(look.answer.rejected.sum())
        if weight > self._most:
            self.peak, self._most = (face, look), weight

    def expressiveness(self) -> np.ndarray:
        """(T,) 1 - p_reject."""
        return np.array([1.0 - one.rejected.sum() for one in self.answers])

    def mean(self, weights: np.ndarray) -> Answer:
        """The mean over frames, weights (T,) not negative."""
        weights = np.maximum(weights, 1e-9) / np.maximum(weights, 1e-9).sum()
        parts = ([getattr(one, name) for one in self.answers] for name in ("classes", "views", "rejected"))
        return Answer(*(np.tensordot(weights, np.array(part), axes=1) for part in parts), self.answers[0].present)


class Clock:
    """Milliseconds of the steps of one call; a step that comes again adds to its time."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._steps: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._steps[name] = self._steps.get(name, 0.0) + 1000 * (time.perf_counter() - start)

    def move(self, step: str, to: str, milliseconds: float) -> None:
        """Part of what one step took was another, which comes first."""
        self._steps[step] -= milliseconds
        self._steps = {to: milliseconds, **self._steps}

    def finish(self) -> dict[str, float]:
        return {**self._steps, "total": 1000 * (time.perf_counter() - self._start)}
