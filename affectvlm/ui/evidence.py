"""From a question about the answer to its evidence: maps, trust, contributions, and values on the mesh.

As in `engine`: what comes from a visitor's face is kept by content hash, settings and checkpoint for the session, and
dropped by "Forget everything"; torch is imported inside functions. The maps need no lock, as nothing is hooked on the
model that sessions share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from affectvlm.scan import Scan
from affectvlm.ui import engine
from affectvlm.ui.display import DisplayMesh
from affectvlm.ui.state import Face
from affectvlm.ui.work import in_turn

if TYPE_CHECKING:
    from affectvlm.gradcam import Contributions, Target, Trust, ViewMaps
    from affectvlm.predictor import Prediction

EMOTION, CONTRAST, WORDS = "One emotion", "Why this, not that", "My own words"
WAYS = (EMOTION, CONTRAST, WORDS)


@dataclass(frozen=True)
class Question:
    """What is asked: `first` an emotion, or words; `second` the other emotion of a contrast."""

    way: str
    first: str
    second: str = ""


@dataclass(frozen=True, eq=False)
class Case:
    """One face as one model answered it, and the key of all that is derived from both."""

    face: Face
    correction: tuple[int, int, int]
    folder: Path

    @property
    def key(self) -> str:
        return f"{self.face.digest}:{self.correction}:{engine.stamp(self.folder)}"

    @property
    def prediction(self) -> Prediction:
        return engine.answer(self.face, self.correction, self.folder)

    @property
    def present(self) -> np.ndarray:
        """(N,) bool: which views there are."""
        prediction = self.prediction
        return np.array([name in prediction.view_probabilities for name in prediction.view_names])


def emotions(folder: Path) -> tuple[str, ...]:
    return tuple(engine.predictor(folder).card.classes)


def methods(folder: Path) -> tuple[str, ...]:
    from affectvlm.gradcam import methods_for

    return methods_for(engine.predictor(folder).model)


def target(question: Question, folder: Path) -> Target:
    """What the question asks of the model in `folder`.

    Raises:
        ValueError: no words, an emotion that the model does not know, or twice the same.
    """
    return _target(f"{question}:{engine.stamp(folder)}", question, folder)


@st.cache_resource(max_entries=24, show_spinner=False, scope="session")
def _target(key: str, _question: Question, _folder: Path) -> Target:
    from affectvlm.gradcam import contrast_target, emotion_target, prompt_target

    predictor = engine.predictor(_folder)
    if _question.way == WORDS:
        return prompt_target(predictor.model, _question.first)
    card, bank = predictor.card, _bank(engine.stamp(_folder), _folder)
    if _question.way == CONTRAST:
        return contrast_target(bank, card.prompts.rows, _question.first, _question.second, card.temperature)
    return emotion_target(bank, card.prompts.rows, _question.first, card.temperature)


@lru_cache(maxsize=3)
def _bank(key: str, folder: Path) -> Any:
    import torch

    predictor = engine.predictor(folder)
    with torch.no_grad():
        return predictor.model.text_bank(predictor.card.prompts)


def maps(case: Case, question: Question, method: str | None = None) -> ViewMaps:
    """The maps of the current face; `method` None = the model's best.

    Raises:
        ValueError: as `target`, or the face cannot be answered.
    """
    method = method or methods(case.folder)[0]
    return _maps(f"{case.key}:{question}:{method}", case, question, method)


@st.cache_resource(max_entries=24, show_spinner="Looking where the model looks …", scope="session")
def _maps(key: str, _case: Case, _question: Question, _method: str) -> ViewMaps:
    from affectvlm.gradcam import explain

    model = engine.predictor(_case.folder).model
    views, wanted = _case.prediction.inputs, target(_question, _case.folder)
    with in_turn():
        return explain(model, views, wanted, _case.present, _method)


def trusted(case: Case, question: Question, method: str) -> Trust:
    return _trusted(f"{case.key}:{question}:{method}", case, question, method)


@st.cache_resource(max_entries=24, show_spinner="Testing the map against chance …", scope="session")
def _trusted(key: str, _case: Case, _question: Question, _method: str) -> Trust:
    from affectvlm.gradcam import trust

    model, views = engine.predictor(_case.folder).model, _case.prediction.inputs
    evidence, wanted = maps(_case, _question, _method), target(_question, _case.folder)
    with in_turn():
        return trust(model, views, wanted, evidence.maps, _case.present)


def likeness_to_shuffled(case: Case, question: Question, method: str) -> float:
    """Rank correlation with the map of a network with shuffled weights."""
    return _likeness(f"{case.key}:{question}:{method}", case, question, method)


@st.cache_resource(max_entries=24, show_spinner="Asking a network with shuffled weights …", scope="session")
def _likeness(key: str, _case: Case, _question: Question, _method: str) -> float:
    from affectvlm.gradcam import weights_matter

    model, views = engine.predictor(_case.folder).model, _case.prediction.inputs
    wanted = target(_question, _case.folder)
    with in_turn():
        return weights_matter(model, views, wanted, _case.present, _method)


def parts(case: Case, question: Question) -> Contributions:
    """What each view and region gives, by leaving it out."""
    return _parts(f"{case.key}:{question}", case, question)


@st.cache_resource(max_entries=24, show_spinner="Leaving out one part after the other …", scope="session")
def _parts(key: str, _case: Case, _question: Question) -> Contributions:
    from affectvlm.gradcam import contributions, photo_regions, scan_regions

    predictor, prediction = engine.predictor(_case.folder), _case.prediction
    if prediction.scan is None:
        regions = photo_regions()
    else:
        regions = scan_regions(prediction.scan, predictor.card.yaws, predictor.card.half_width)
    wanted, names = target(_question, _case.folder), prediction.view_names
    with in_turn():
        return contributions(predictor.model, prediction.inputs, wanted, regions, _case.present, names)


def painted(case: Case, question: Question, mesh: DisplayMesh) -> DisplayMesh:
    """The mesh with the evidence as colours of its vertices."""
    return _painted(f"{case.key}:{question}", case, question, mesh)


@st.cache_resource(max_entries=8, show_spinner=False, scope="session")
def _painted(key: str, _case: Case, _question: Question, _mesh: DisplayMesh) -> DisplayMesh:
    from affectvlm.gradcam import vertex_paint

    values = _on_vertices(_case, _question, Scan(_mesh.vertices, _mesh.faces))
    return _mesh.painted(vertex_paint(values))


def scan_values(case: Case, question: Question) -> np.ndarray:
    """(V,) evidence on the vertices of the whole scan, NaN where unseen."""
    return _scan_values(f"{case.key}:{question}", case, question)


@st.cache_resource(max_entries=8, show_spinner=False, scope="session")
def _scan_values(key: str, _case: Case, _question: Question) -> np.ndarray:
    return _on_vertices(_case, _question, _case.prediction.scan)


def mesh_file(scan: Scan, values: np.ndarray, kind: str, title: str) -> bytes:
    """The whole scan with evidence as vertex colours; kind is "PLY" or "GLB". Needs nothing of the session."""
    from affectvlm.gradcam import evidence_glb, evidence_ply

    if kind == "GLB":
        return evidence_glb(scan, values)
    return evidence_ply(scan, values, f"evidence for {title}, 0 to 1, AffectVLM")


def _on_vertices(case: Case, question: Question, scan: Scan) -> np.ndarray:
    from affectvlm.gradcam import project

    card = engine.predictor(case.folder).card
    return project(scan, maps(case, question).maps, card.yaws, card.half_width, case.present)


def grid(faces: Sequence[Face], folder: Path, emotion: str | None, opacity: float) -> tuple[bytes, tuple[str, ...]]:
    """Many faces by views as PNG, and what was wrong with the files that are not in it.

    Each face is explained for `emotion`, or without one for the emotion it was answered with.

    Raises:
        ValueError: none of the faces can be used.
    """
    from affectvlm.gradcam import GridRow, grid_png
    from affectvlm.ui.words import percent

    rows, problems, names = [], [], ()
    progress = st.progress(0.0, "Looking at the faces …")
    for number, face in enumerate(faces):
        progress.progress(number / len(faces), f"Looking at {face.title} …")
        case = Case(face, (0, 0, 0), folder)
        try:
            prediction = case.prediction
        except ValueError as error:  # ScanError: made to be read
            problems.append(str(error))
            continue
        names = prediction.view_names
        evidence = maps(case, Question(EMOTION, emotion or prediction.emotion))
        said = f"{prediction.emotion} {percent(prediction.confidence)}"
        rows.append(GridRow(face.title, said, prediction.views, evidence.maps))
    progress.empty()
    heading = f"Evidence for {emotion}" if emotion else "Evidence for the answer"
    return grid_png(rows, names, heading, opacity), tuple(problems)


engine.SESSION_CACHES += [_target, _maps, _trusted, _likeness, _parts, _painted, _scan_values]
