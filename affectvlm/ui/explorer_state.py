"""The explorer's face in a visit: its recipe, the pose it came from, and where the model was seen to listen."""

from __future__ import annotations

from dataclasses import dataclass, replace

import streamlit as st

from affectvlm.steering import Surroundings
from affectvlm.synthesis.recipe import FaceRecipe
from affectvlm.ui import state

NEUTRAL = "neutral"
TITLE = "a face from the explorer"
_KEPT = 8  # surroundings of this many faces; 30 kB each


@dataclass(frozen=True)
class Exploring:
    """What is on the page.

    Attributes:
        recipe: the face.
        pose: the textbook expression it shows, or None once a single muscle was moved.
        strength: of that pose, 0 to 1.
    """

    recipe: FaceRecipe
    pose: str | None
    strength: float


START = Exploring(FaceRecipe(seed=13).posing("surprise", 0.7), "surprise", 0.7)


def now() -> Exploring:
    return st.session_state.get("exploring", START)


def _set(exploring: Exploring) -> None:
    st.session_state["exploring"] = exploring


def reset() -> None:
    _set(START)


def relax() -> None:
    """The same person with no muscle in use."""
    pose(NEUTRAL, now().strength)


def move(unit: str, value: float) -> None:
    here = now()
    _set(replace(here, recipe=here.recipe.with_unit(unit, value), pose=None))


def pose(emotion: str | None, strength: float) -> None:
    """A textbook expression; None leaves the face as it is."""
    here = now()
    recipe = here.recipe if emotion is None else here.recipe.posing(emotion, strength)
    _set(Exploring(recipe, emotion, strength))


def person(**traits) -> None:
    """Another sex, age or build for the same person; another seed for another one, with traits of their own."""
    here = now()
    if "seed" in traits:
        traits = {"sex": None, "age": None, "build": None, **traits}
    _set(replace(here, recipe=replace(here.recipe, **traits)))


def use() -> None:
    """Makes it the current face of the visit, as if its scan had been brought."""
    import trimesh

    from affectvlm.ui import engine

    scan = now().recipe.scan(engine.face_model())
    mesh = trimesh.Trimesh(scan.vertices, scan.faces, vertex_colors=scan.colors, process=False)
    data = mesh.export(file_type="ply")
    state.set_face(state.Face("scan", TITLE, (("explorer.ply", data),)))


def kept(key: str) -> Surroundings | None:
    return st.session_state.get("surroundings", {}).get(key)


def keep(key: str, around: Surroundings) -> None:
    found = st.session_state.setdefault("surroundings", {})
    found[key] = around
    while len(found) > _KEPT:
        del found[next(iter(found))]
