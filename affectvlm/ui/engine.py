"""From the current face to its answer: the shared predictor, results kept for the session, and the warm start.

What comes from a visitor's face is kept by content hash, settings and checkpoint, at most a dozen a session, and dies
with it (streamlit's cache in session scope). What is the same for everybody, predictor and samples, is made once a
process behind a lock, so that the warm-up thread and a hasty visitor wait for each other. torch and the model are
imported inside functions, so that the first page comes at once.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from affectvlm.emotions import EKMAN
from affectvlm.runs import models
from affectvlm.scan import Scan
from affectvlm.ui.display import DisplayMesh, display_mesh
from affectvlm.ui.export import ExportWorker
from affectvlm.ui.memory import set_aside, share_heaps
from affectvlm.ui.state import Face
from affectvlm.ui.stills import with_stills
from affectvlm.ui.work import in_turn

if TYPE_CHECKING:
    from affectvlm.predictor import Prediction, Predictor
    from affectvlm.synthesis.base import FaceModel
    from affectvlm.zero_shot import FaceFeatures, ZeroShot

logger = logging.getLogger(__name__)

CHECKPOINTS = Path(os.environ.get("AFFECTVLM_CHECKPOINTS", Path(__file__).resolve().parents[2] / "checkpoints"))
RUNS = Path(os.environ.get("AFFECTVLM_RUNS", Path(__file__).resolve().parents[2] / "runs"))
CARD = "card.json"
SHIPPED = "affectvlm-compact"
SAMPLE_SEED = 7

SESSION_CACHES: list[Any] = []
"""What other modules keep of a visitor's face, for `forget_results`."""

_loading, _sampling = threading.Lock(), threading.RLock()


def checkpoints() -> dict[str, Path]:
    """Name → folder of every model there is to choose from: the shipped one, others beside it, those of trainings."""
    folders = sorted(card.parent for card in CHECKPOINTS.glob(f"*/{CARD}"))
    shipped = {folder.name: folder for folder in sorted(folders, key=lambda folder: folder.name != SHIPPED)}
    trained = {run_model(name): folder for name, folder in models(RUNS).items() if classes(folder) is not None}
    return shipped | trained


def classes(folder: Path | None) -> tuple[str, ...] | None:
    """The classes of a model in their order; None without a model, or where its card does not say."""
    return None if folder is None else _told(stamp(folder), folder)[0]


def reads_motion(folder: Path | None) -> bool:
    """Whether a model takes sequences only: it was trained on dynamic images, and a single face tells it nothing."""
    return folder is not None and _told(stamp(folder), folder)[1]


@lru_cache(maxsize=256)
def _told(key: str, folder: Path) -> tuple[tuple[str, ...] | None, bool]:
    try:
        card = read_card(folder)
    except (OSError, ValueError):
        return None, False
    names = card.get("classes")
    is_list = isinstance(names, list) and names and all(isinstance(name, str) for name in names)
    return tuple(names) if is_list else None, card.get("temporal") is True


def run_model(name: str) -> str:
    """How the model of a training is called among those to choose from."""
    return f"run {name}"


def read_card(folder: Path) -> dict[str, Any]:
    """The content of a model's card, unchecked but for being a JSON object.

    Raises:
        ValueError: it is none.
    """
    card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    if not isinstance(card, dict):
        raise ValueError(f"{CARD} of {folder.name} is {type(card).__name__}; a JSON object is needed")
    return card


def stamp(folder: Path) -> str:
    """Folder and time of its last change: a retrained model gets its own answers."""
    return f"{folder}@{max(file.stat().st_mtime_ns for file in folder.iterdir())}"


def predictor(folder: Path) -> Predictor:
    """The predictor of a checkpoint folder, shared by all sessions: it keeps nothing of any call."""
    with _loading:
        return _load(stamp(folder), folder)


@lru_cache(maxsize=3)
def _load(key: str, folder: Path) -> Predictor:
    from affectvlm.predictor import Predictor

    return Predictor.from_checkpoint(folder)


def zero_shot(folder: Path) -> ZeroShot:
    """The same model, to be asked in other words; shared by all sessions too."""
    found = predictor(folder)
    with _loading:
        return _load_zero_shot(stamp(folder), found)


@lru_cache(maxsize=3)
def _load_zero_shot(key: str, found: Predictor) -> ZeroShot:
    from affectvlm.zero_shot import ZeroShot

    return ZeroShot(found.model, found.card)


def face_features(face: Face, correction: tuple[int, int, int], folder: Path) -> FaceFeatures:
    """What the model's image tower makes of the face: the views that `answer` is read from.

    Raises:
        ScanError, ValueError, CheckpointError: as `answer`.
    """
    prediction = answer(face, correction, folder)
    return _features(f"{face.digest}:{correction}:{stamp(folder)}", prediction, zero_shot(folder))


@st.cache_resource(max_entries=12, show_spinner=False, scope="session")
def _features(key: str, _prediction: Prediction, _zero_shot: ZeroShot) -> FaceFeatures:
    present = [name in _prediction.view_probabilities for name in _prediction.view_names]
    return _zero_shot.features(_prediction.inputs, np.array(present))


def answer(face: Face, correction: tuple[int, int, int], folder: Path) -> Prediction:
    """What the model in `folder` says of the face.

    Raises:
        ScanError, ValueError: the file cannot be used; the message is for the visitor.
        CheckpointError: the model cannot.
    """
    if face.kind == "sequence":
        return _answer_to_sequence(face, folder)
    return _answer(f"{face.digest}:{correction}:{stamp(folder)}", face, correction, folder)


@st.cache_resource(max_entries=12, show_spinner="Looking at the face …", scope="session")
def _answer(key: str, _face: Face, _correction: tuple[int, int, int], _folder: Path) -> Prediction:
    found = predictor(_folder)
    with in_turn():
        if _face.kind == "photos":
            return found.predict_photos(**dict(_face.files))
        return found.predict(source(_face), correction=_correction)


def _answer_to_sequence(face: Face, folder: Path) -> Prediction:
    """The answer that the page of sequences waits for, where it is there."""
    from affectvlm.ui import sequence_state

    work = sequence_state.finished(folder)
    if work is None or (work.key, None) not in face.files:
        raise ValueError(f"{face.title} has no answer of this model yet; open it on the page “Sequence” first")
    return work.result.prediction


def source(face: Face) -> Scan | tuple[bytes, str]:
    """What the predictor takes: a sample's scan, or an upload's bytes and name."""
    name, data = face.files[0]
    return sample_scan(name) if data is None else (data, name)


def sample_scan(emotion: str) -> Scan:
    """A face of our own making that poses the emotion; the same every time."""
    with _sampling:
        return _make_sample(emotion)


@cache
def _make_sample(emotion: str) -> Scan:
    from affectvlm.synthesis.expressions import prototype

    person = face_model().sample_identity(np.random.default_rng(SAMPLE_SEED + EKMAN.index(emotion)))
    return face_model().generate(person, prototype(emotion))


@cache
def face_model() -> FaceModel:
    """The procedural head, of which samples and the explorer's faces are made."""
    from affectvlm.synthesis.procedural import ProceduralFace

    return ProceduralFace()


@cache
def sample_picture(emotion: str) -> np.ndarray:
    """(160, 160, 3) uint8: the sample from the front."""
    from affectvlm.rendering import render_views

    return render_views(sample_scan(emotion), "textured", size=160, yaws=(0.0,))[0]


def frontal_scan(face: Face, correction: tuple[int, int, int], folder: Path | None) -> Scan:
    """The face turned to the front: the very scan the answer was read from, where there is a model."""
    if folder is not None:
        return answer(face, correction, folder).scan
    return _frontal(f"{face.digest}:{correction}", face, correction)


@st.cache_resource(max_entries=4, show_spinner="Turning the face to the front …", scope="session")
def _frontal(key: str, _face: Face, _correction: tuple[int, int, int]) -> Scan:
    from affectvlm.pose import frontalize
    from affectvlm.scan_io import read_scan

    given = source(_face)
    return frontalize(given if isinstance(given, Scan) else read_scan(*given), _correction).scan


@st.cache_resource(max_entries=4, show_spinner=False, scope="session")
def mesh_for_display(key: str, _scan: Scan) -> DisplayMesh:
    """The scan thinned for the screen; `key` names face, correction and model."""
    return display_mesh(_scan)


@cache
def export_worker() -> ExportWorker:
    return ExportWorker()


@st.cache_resource(max_entries=4, show_spinner="Preparing the mesh …", scope="session")
def exported_page(key: str, _mesh: DisplayMesh, _appearance: bool, _background: str, _skin: str) -> str:
    """The interactive HTML page; byte for byte the same at every rerun, so that it is sent once."""
    page = export_worker().export(_mesh, _appearance, _background, _skin)
    return with_stills(page, _mesh, _appearance, _background)


def forget_results() -> None:
    """Drops what was derived from this session's faces."""
    for cached in (_answer, _features, _frontal, mesh_for_display, exported_page, *SESSION_CACHES):
        cached.clear()


@cache
def warm_up() -> None:
    """Loads model, kernels and samples in the background, once, while the visitor is still looking for a file."""
    share_heaps()
    threading.Thread(target=_warm, name="warm-up", daemon=True).start()


def _warm() -> None:
    try:
        for folder in list(checkpoints().values())[:1]:
            found, face = predictor(folder), sample_scan(EKMAN[0])
            found.predict([face, face] if reads_motion(folder) else face)
        export_worker().start()
        import plotly.graph_objects  # noqa: F401  (the next page's need, before all is set aside)

        set_aside()
    except Exception:  # the same failure meets the visitor where it can be told; here it would only be lost
        logger.exception("warm-up failed")
