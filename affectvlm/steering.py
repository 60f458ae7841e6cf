"""Which action units a model listens to: small steps away from a modelled face, and what each does to an answer.

Finite differences, not gradients: a face is rendered anew for every step, so that lids that close, lips that touch and
jaws that swing count as the model would see them. The model looks at
the faces around one in batches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from affectvlm import rendering
from affectvlm.synthesis.action_units import UNITS
from affectvlm.synthesis.base import FaceModel

if TYPE_CHECKING:
    from affectvlm.model import Card
    from affectvlm.synthesis.recipe import FaceRecipe
    from affectvlm.zero_shot import ZeroShot

STEP = 0.2
"""How far an action unit is moved, as a part of its full intensity."""

_AT_ONCE = 6  # faces in one forward pass: small enough that a page can be interrupted in between
_RESOLUTION = 1e-3  # a smaller way to the end of the range is no step


@dataclass(frozen=True)
class Step:
    """One action unit moved: up (`more`) or down, to the intensity `value`."""

    unit: str
    value: float
    more: bool


@dataclass(frozen=True, eq=False)
class Surroundings:
    """A face and the faces one step around it, as the model sees them.

    Attributes:
        steps: (S) the steps that its action units leave room for.
        features: (1 + S, D) float32 of unit length: the face itself, then each step.
    """

    steps: tuple[Step, ...]
    features: np.ndarray


def steps_around(units: Mapping[str, float], step: float = STEP) -> tuple[Step, ...]:
    """A step up and one down for every action unit, cut at 0 and 1; none where there is no room.

    Raises:
        ValueError: a step that is not in (0, 1].
    """
    if not 0 < step <= 1:
        raise ValueError(f"the step is {step}; more than 0 and at most 1 is needed")
    found = []
    for name in UNITS:
        here = units.get(name, 0.0)
        for value, more in ((min(here + step, 1.0), True), (max(here - step, 0.0), False)):
            if abs(value - here) > _RESOLUTION:
                found.append(Step(name, round(value, 6), more))
    return tuple(found)


def views(recipes: Sequence[FaceRecipe], model: FaceModel, card: Card) -> np.ndarray:
    """(B, N, H, W, 3) uint8: each face as a model with that card sees it, drawn at the size that its tower takes."""

    def draw(recipe: FaceRecipe) -> np.ndarray:
        size, yaws, half_width = card.image_size, card.yaws, card.half_width
        return rendering.render_views(recipe.scan(model), card.image_kind, size, yaws, half_width)

    with ThreadPoolExecutor(2) as pool:  # drawing releases the interpreter
        return np.stack(list(pool.map(draw, recipes)))


def look_around(
    recipe: FaceRecipe,
    model: FaceModel,
    zero_shot: ZeroShot,
    step: float = STEP,
    on_progress: Callable[[float], None] = lambda share: None,
) -> Surroundings:
    """Draws the face and every step around it, and has the model look at them, a few at a time.

    Args:
        on_progress: called with the share that is done, up to 1; what it raises ends the work.

    Raises:
        ValueError: a step that is not in (0, 1].
    """
    steps = steps_around(recipe.units, step)
    faces = [recipe, *(recipe.with_unit(each.unit, each.value) for each in steps)]
    features = []
    for start in range(0, len(faces), _AT_ONCE):
        features.append(zero_shot.fused_features(views(faces[start : start + _AT_ONCE], model, zero_shot.card)))
        on_progress(min(1.0, (start + _AT_ONCE) / len(faces)))
    return Surroundings(steps, np.concatenate(features))


def effects(around: Surroundings, log_probabilities: np.ndarray, row: int) -> dict[Step, float]:
    """Step → by how much it changes the log-probability of a row.

    Args:
        log_probabilities: (1 + S, K + R) of `around.features` (`ZeroShot.log_probabilities`).
    """
    changes = log_probabilities[1:, row] - log_probabilities[0, row]
    return dict(zip(around.steps, map(float, changes), strict=True))


def best_step(changes: Mapping[Step, float]) -> Step | None:
    """The step that helps most; None where none helps: a local best."""
    best = max(changes, key=changes.get, default=None)
    return best if best is not None and changes[best] > 0 else None
