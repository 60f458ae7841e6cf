"""Everything about one answer as one zip, made in memory: numbers, pictures, mesh, settings, model card and report.

The same answer gives the same bytes: entries are sorted and bear no time, and the date is the caller's. No streamlit in
here.
"""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np

import affectvlm
from affectvlm.mesh_files import scan_glb, scan_ply
from affectvlm.ui import words

if TYPE_CHECKING:
    from affectvlm.gradcam import ViewMaps
    from affectvlm.predictor import Prediction

CONTENT = {
    "answer.json": "the answer with all its numbers",
    "probabilities.csv": "the probabilities: of all views together, and of each view alone",
    "curve.csv": "the probabilities over time, of each frame alone and smoothed",
    "report.html": "a page to read and to print",
    "settings.json": "what was asked of what: file, correction of the pose, model, version",
    "model_card.json": "what the model is, what it was trained on, its figures and limits",
    "views/": "the face as people see it, one picture a view",
    "inputs/": "the same as the model saw it",
    "dynamic/": "the whole sequence in one picture a view (rank pooling); plain grey did not move",
    "mesh/": "the scan turned to the front: PLY in mm, GLB in m; nose tip at the origin",
    "evidence/": "where the model looks: pictures, the maps as numbers (NPZ), and the mesh so painted",
}
"""What may lie in the zip, and what is said of it there."""

MODEL_KEYS = (
    "name",
    "arch",
    "created",
    "code_version",
    "weights_sha256",
    "image_kind",
    "yaws",
    "half_width",
    "temperature",
    "rejection_margin",
)
"""Of the model card: what says which model it was."""

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first moment a zip can tell


@dataclass(frozen=True, eq=False)
class Case:
    """One answer and what belongs to it.

    Attributes:
        title: what the visitor calls the face: a file's name, "three photos".
        digest: SHA-256 of what was brought.
        correction: degrees of yaw, pitch, roll that were added to the pose that was found.
        card: content of the model's `card.json`.
        made: the day of the answer.
        evidence: maps, where they were made.
    """

    prediction: Prediction
    title: str
    digest: str
    correction: tuple[float, float, float]
    card: Mapping[str, Any]
    made: date
    evidence: ViewMaps | None = None


def bundle(case: Case) -> bytes:
    """The zip: as much of CONTENT as there is, and a README that says what is what."""
    from affectvlm.ui.report import report

    prediction = case.prediction
    files: dict[str, bytes] = {
        "answer.json": answer_json(prediction),
        "probabilities.csv": probabilities_csv(prediction),
        "settings.json": _json(settings(case)),
        "model_card.json": _json(case.card),
        "report.html": report(case).encode(),
        **pictures("views", prediction, prediction.views),
        **pictures("inputs", prediction, prediction.inputs),
    }
    if prediction.curve is not None:
        files["curve.csv"] = curve_csv(prediction)
    if prediction.dynamic_images is not None:
        files |= pictures("dynamic", prediction, prediction.dynamic_images)
    if prediction.scan is not None:
        files |= {"mesh/face.ply": scan_ply(prediction.scan), "mesh/face.glb": scan_glb(prediction.scan)}
    if case.evidence is not None:
        files |= _evidence(case)
    return zipped({"README.txt": _readme(files, case), **files})


def zipped(files: Mapping[str, bytes]) -> bytes:
    """Files by name as a zip that is the same for the same content."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system, entry.external_attr = 3, 0o644 << 16  # alike on every system
            # pictures are packed already
            entry.compress_type = zipfile.ZIP_STORED if name.endswith((".png", ".npz")) else zipfile.ZIP_DEFLATED
            archive.writestr(entry, files[name], compresslevel=6)
    return stream.getvalue()


def answer_json(prediction: Prediction) -> bytes:
    """`Prediction.to_dict`."""
    return _json(prediction.to_dict())


def probabilities_csv(prediction: Prediction) -> bytes:
    """A line for all views together and one for each view: view, then the probability of each class."""
    classes = list(prediction.probabilities)
    rows = [["all", *prediction.probabilities.values()]]
    rows += [[name, *shares.values()] for name, shares in prediction.view_probabilities.items()]
    return _csv(["view", *classes], rows)


def curve_csv(prediction: Prediction) -> bytes:
    """A line a frame: number, seconds where known, phase where it is one, expressiveness, raw and smoothed shares.

    Raises:
        ValueError: the answer has no curve.
    """
    curve = prediction.curve
    if curve is None:
        raise ValueError("the answer has no curve; that of a sequence is needed")
    phase = {getattr(curve, name): name for name in ("offset", "onset", "apex") if getattr(curve, name) is not None}
    heads = [
        "frame",
        "seconds",
        "phase",
        "expressiveness",
        *curve.classes,
        *(f"{name} smoothed" for name in curve.classes),
    ]
    rows = [
        [
            int(curve.frames[i]),
            None if curve.times is None else float(curve.times[i]),
            phase.get(i),
            float(curve.expressiveness[i]),
            *map(float, curve.raw[i]),
            *map(float, curve.smoothed[i]),
        ]
        for i in range(len(curve.frames))
    ]
    return _csv(heads, rows)


def pictures(folder: str, prediction: Prediction, images: np.ndarray) -> dict[str, bytes]:
    """(N, H, W, 3) uint8 as PNG files named by view; views that were not brought are left out."""
    return {
        f"{folder}/{name}.png": png(image)
        for name, image in zip(prediction.view_names, images, strict=True)
        if name in prediction.view_probabilities
    }


def png(image: np.ndarray) -> bytes:
    """(H, W, 3) uint8 → PNG."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(stream, "PNG")
    return stream.getvalue()


def settings(case: Case) -> dict[str, Any]:
    """What was asked of what, so that the answer can be had again."""
    axes = ("yaw", "pitch", "roll")
    return {
        "software": f"AffectVLM {affectvlm.__version__}",
        "date": case.made.isoformat(),
        "brought": {"name": case.title, "kind": case.prediction.kind, "sha256": case.digest},
        "correction_degrees": dict(zip(axes, map(float, case.correction), strict=True)),
        "model": {key: case.card.get(key) for key in MODEL_KEYS},
        "evidence": None if case.evidence is None else _evidence_settings(case.evidence),
    }


def _evidence_settings(evidence: ViewMaps) -> dict[str, Any]:
    return {"target": evidence.target, "method": evidence.method, "layer": evidence.layer}


def _evidence(case: Case) -> dict[str, bytes]:
    from affectvlm.gradcam import evidence_glb, evidence_ply, maps_npz, overlay, project

    prediction, evidence = case.prediction, case.evidence
    files = pictures("evidence", prediction, overlay(prediction.views, evidence.maps))
    files["evidence/maps.npz"] = maps_npz(evidence, prediction.views, prediction.view_names)
    scan, card = prediction.scan, case.card
    if scan is not None and prediction.kind == "scan":
        values = project(scan, evidence.maps, card["yaws"], card["half_width"])
        files["evidence/face.ply"] = evidence_ply(scan, values, f"evidence for {evidence.target}, 0 to 1, AffectVLM")
        files["evidence/face.glb"] = evidence_glb(scan, values)
    return files


def _readme(files: Mapping[str, bytes], case: Case) -> bytes:
    lines = [f"AffectVLM on {case.title}, {case.made.isoformat()}", "", words.confidence(case.prediction), ""]
    for name, meaning in CONTENT.items():
        if any(file == name or file.startswith(name) and name.endswith("/") for file in files):
            lines.append(f"{name:20s}{meaning}")
    lines += ["", words.INTENDED_USE, "Faces are biometric data; treat these files so.", ""]
    return "\n".join(lines).encode()


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def _csv(heads: list[str], rows: list[list[Any]]) -> bytes:
    stream = io.StringIO(newline="")
    csv.writer(stream).writerows([heads, *rows])
    return stream.getvalue().encode()
