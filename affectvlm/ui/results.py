"""Under an answer: everything about it to take along."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

import streamlit as st

from affectvlm.ui import bundle, engine, evidence, state
from affectvlm.ui.bundle import Case

if TYPE_CHECKING:
    from affectvlm.predictor import Prediction


def show(face: state.Face, folder: Path) -> None:
    """Downloads of the answer to the current face."""
    prediction = engine.answer(face, state.correction(), folder)
    with st.popover("Take it with you", icon=":material/download:"):
        case = case_of(prediction, face.title, face.digest, state.correction(), folder)
        asked = asked_emotion(face, prediction)
        if st.checkbox(
            "Include the evidence maps", asked is not None, key=f"take_evidence_{face.digest}_{asked}",
            persist_state="session",
            help="Where the model looks: maps of the views and the mesh so painted, as on the page Grad-CAM.",
        ):  # fmt: skip
            question = evidence.Question(evidence.EMOTION, asked or prediction.emotion)
            maps = evidence.maps(evidence.Case(face, state.correction(), folder), question)
            case = replace(case, evidence=maps)
        downloads(case, face.title)


def show_sequence(prediction: Prediction, title: str, digest: str, folder: Path) -> None:
    """Downloads of the answer to a sequence."""
    with st.popover("Take it with you", icon=":material/download:"):
        downloads(case_of(prediction, title, digest, state.NO_CORRECTION, folder), title)


def case_of(prediction: Prediction, title: str, digest: str, correction: tuple[int, int, int], folder: Path) -> Case:
    return Case(prediction, title, digest, correction, engine.read_card(folder), date.today())


def asked_emotion(face: state.Face, prediction: Prediction) -> str | None:
    """The emotion whose maps the visitor looked at on the page Grad-CAM; None where that was not of this face."""
    emotion = st.session_state.get(f"evidence_emotion_{face.digest}")
    return emotion if emotion in prediction.probabilities else None


def downloads(case: Case, title: str) -> None:
    """The buttons. What they give is made when they are pressed, from the case alone."""
    name = file_name(title)
    _button("Everything (ZIP)", lambda: bundle.bundle(case), f"{name}.zip", "application/zip", "primary")
    _button("Report to print (HTML)", lambda: _report(case), f"{name}-report.html", "text/html")
    _button("Numbers (JSON)", lambda: bundle.answer_json(case.prediction), f"{name}.json", "application/json")
    _button("Probabilities (CSV)", lambda: bundle.probabilities_csv(case.prediction), f"{name}.csv", "text/csv")
    if case.prediction.curve is not None:
        _button("Curve (CSV)", lambda: bundle.curve_csv(case.prediction), f"{name}-curve.csv", "text/csv")
    _button("Pictures (PNG in a ZIP)", lambda: _pictures(case), f"{name}-pictures.zip", "application/zip")
    if case.prediction.scan is not None:
        from affectvlm.mesh_files import scan_glb, scan_ply

        scan = case.prediction.scan
        _button("Mesh, turned to the front (PLY)", lambda: scan_ply(scan), f"{name}.ply", "application/octet-stream")
        _button("Mesh, turned to the front (GLB)", lambda: scan_glb(scan), f"{name}.glb", "model/gltf-binary")


def file_name(title: str) -> str:
    """A name for files about it: "Anna (1).obj" → "affectvlm-anna-1"."""
    stem = PurePath(title).stem
    letters = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in stem.lower())
    return "-".join(["affectvlm", *filter(None, letters.split("-"))])[:60]


def _pictures(case: Case) -> bytes:
    prediction = case.prediction
    views, inputs = prediction.views, prediction.inputs
    return bundle.zipped(bundle.pictures("views", prediction, views) | bundle.pictures("inputs", prediction, inputs))


def _report(case: Case) -> bytes:
    from affectvlm.ui.report import report

    return report(case).encode()


def _button(label: str, data: Callable[[], bytes] | bytes, name: str, mime: str, kind: str = "tertiary") -> None:
    st.download_button(label, data, name, mime, on_click="ignore", type=kind, icon=":material/download:")
