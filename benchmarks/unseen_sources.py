"""Accuracy of a checkpoint on face families it was not trained on, with known pose and end to end.

    python -m benchmarks.unseen_sources --checkpoint checkpoints/affectvlm-compact --ict ict_face.npz \
        --makehuman makehuman_face.npz --scan LeePerrySmith.glb --output report.json

With known pose: faces in the canonical frame, cropped as the scan path crops them, through `methods.scoring`. End to
end: the same faces as whole heads, turned at random, through `Predictor.predict`, so that errors of the pose count
too. Rendered photos: coloured faces as pictures before a background, through `Predictor.predict_photos`. Also what
neutral faces, things that are not a face and one real neutral scan get.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from affectvlm.augmentation.views import store, stored_side
from affectvlm.data import LABELS, REJECTION, clean
from affectvlm.emotions import EKMAN
from affectvlm.methods.scoring import face_logits, report
from affectvlm.metrics import summary
from affectvlm.model import load_checkpoint
from affectvlm.predictor import Predictor
from affectvlm.rendering import DEFAULT_YAWS, HALF_WIDTH_MM, render_buffers
from affectvlm.scan import Scan
from affectvlm.synthesis.expressions import sample_expression
from affectvlm.synthesis.objects import random_object
from benchmarks.makehuman import MakeHumanFace, sample_units

INTENSITIES = (1.0, 0.75, 0.5)


class Faces:
    """Faces rendered for pictures of `size` pixels and held in memory, with the attributes that scoring reads."""

    def __init__(self, scans: list[Scan], labels: list[int], intensity: list[float], size: int) -> None:
        side = stored_side(size)
        self._views = np.stack(
            [store(render_buffers(clean(s), DEFAULT_YAWS, side, HALF_WIDTH_MM * side / size)) for s in scans]
        )
        self.classes, self.rejection = EKMAN, REJECTION
        self.labels, self.intensity = np.array(labels), np.array(intensity, np.float32)
        self.emotional = self.labels < len(EKMAN)
        self.photo, self.picture = np.zeros(len(labels), bool), np.zeros(len(labels), np.int64)
        self.graded = np.ones(len(labels), bool)

    def views(self, indices: np.ndarray) -> np.ndarray:
        return self._views[indices]

    def batches(self, size: int):
        for start in range(0, len(self.labels), size):
            yield np.arange(start, min(start + size, len(self.labels)))


Drawn = tuple[list[Scan], list[int], list[float]]
"""Scans, their labels (into LABELS) and intensities."""


Express = Callable[[str, float, np.random.Generator], Scan]
"""Emotion, intensity, generator → a new person's face."""


def draw_faces(express: Express, count: int, rng: np.random.Generator) -> Drawn:
    """Every emotion and neutral in turn, at the three intensities in turn."""
    names = (*EKMAN, "neutral")
    scans, labels, levels = [], [], []
    for i in range(count):
        emotion, level = names[i % len(names)], INTENSITIES[(i // len(names)) % 3]
        scans.append(express(emotion, level, rng))
        labels.append(LABELS.index(emotion))
        levels.append(level if emotion in EKMAN else 0.0)
    return scans, labels, levels


def makehuman_faces(path: str, count: int, seed: int) -> Drawn:
    model = MakeHumanFace(path)
    return draw_faces(
        lambda emotion, level, rng: model.express(model.sample_identity(rng), sample_units(emotion, level, rng)),
        count, np.random.default_rng(seed),
    )  # fmt: skip


def model_faces(model, count: int, seed: int) -> Drawn:
    """Identities no split of training can hold: their generator is seeded apart."""
    return draw_faces(
        lambda emotion, level, rng: model.generate(model.sample_identity(rng), sample_expression(emotion, level, rng)),
        count, np.random.default_rng([seed, 99]),
    )  # fmt: skip


def photographed(scan: Scan, rng: np.random.Generator, size: int = 400) -> list[np.ndarray]:
    """Front, left and right as pictures: coloured, under light from somewhere, before some background, off centre."""
    yaws = (rng.normal(0, 6), -rng.uniform(25, 60), rng.uniform(25, 60))
    half_width = rng.uniform(120, 200)
    turn = Rotation.from_euler("XZ", rng.normal(0, 4, 2), degrees=True).as_matrix()
    moved = scan.transformed(turn, rng.normal(0, 18, 3) * [1, 1, 0])
    buffers = render_buffers(moved, yaws, size, half_width)
    direction = np.array([rng.normal(0, 0.6), rng.normal(0.3, 0.4), 1.0])
    light = 0.45 + 0.75 * np.clip(buffers.normals @ (direction / np.linalg.norm(direction)), 0, None)
    small = rng.integers(0, 256, (6, 6, 3)).astype(np.uint8)
    background = cv2.resize(small, (size, size), interpolation=cv2.INTER_CUBIC) / 255.0
    cover = buffers.coverage[..., None]
    image = np.clip(buffers.albedo * light[..., None], 0, 1) * cover + background * (1 - cover)
    return [(np.clip(view + rng.normal(0, 0.01, view.shape), 0, 1) * 255).astype(np.uint8) for view in image]


def known_pose(predictor: Predictor, faces: Faces) -> dict:
    """Every kind of picture with three views; the checkpoint's kind with one and two."""
    model, card = predictor.model, predictor.card
    cases = {f"three views, {kind}": (kind, (0, 1, 2)) for kind in ("normals", "shaded")}
    cases |= {"front view alone": (card.image_kind, (0,)), "front and left view": (card.image_kind, (0, 1)),
              "left view alone": (card.image_kind, (1,))}  # fmt: skip
    return {
        name: report(
            face_logits(model, card.prompts, faces, kind, views), faces, card.temperature, card.rejection_margin
        )
        for name, (kind, views) in cases.items()
    }


def end_to_end(predictor: Predictor, scans: list[Scan], labels: list[int], seed: int) -> dict:
    """Whole heads turned at random through the same call that app and shell use."""
    rng = np.random.default_rng(seed)
    chances, tops = [], []
    for scan in scans:
        turned = scan.transformed(Rotation.random(random_state=rng).as_matrix(), rng.normal(0, 200, 3))
        answer = predictor.predict(turned)
        chances.append(list(answer.probabilities.values()))
        tops.append(answer.confidence)
    labels, chances, tops = np.array(labels), np.array(chances), np.array(tops)
    emotional = labels < len(EKMAN)
    result: dict = {}
    if emotional.any():
        result["emotions"] = summary(labels[emotional], chances[emotional])
    if (~emotional).any():
        result["no emotion"] = {
            "n": int((~emotional).sum()),
            "confident (0.75 and over)": float((tops[~emotional] >= 0.75).mean()),
        }
    return result


def from_photos(predictor: Predictor, drawn: Drawn, seed: int) -> dict:
    """Three pictures of each face, and the front one alone, through the call that app and shell use for photos."""
    rng = np.random.default_rng([seed, 7])
    scans, labels, _ = drawn
    labels = np.array(labels)
    chances: dict[str, list] = {"three photos": [], "front photo alone": []}
    for scan in scans:
        front, left, right = photographed(scan, rng)
        chances["three photos"].append(list(predictor.predict_photos(front, left, right).probabilities.values()))
        chances["front photo alone"].append(list(predictor.predict_photos(front).probabilities.values()))
    emotional = labels < len(EKMAN)
    result = {}
    for name, rows in chances.items():
        rows = np.array(rows)
        result[name] = {
            "emotions": summary(labels[emotional], rows[emotional]),
            "neutral, confident (0.75 and over)": float((rows[~emotional].max(axis=1) >= 0.75).mean()),
        }
    return result


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--checkpoint")
    arguments.add_argument("--ict")
    arguments.add_argument("--makehuman")
    arguments.add_argument("--scan", help="a real scan, reported as it is answered")
    arguments.add_argument("--count", type=int, default=630)
    arguments.add_argument("--turned", type=int, default=140, help="of them, how many end to end")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--output", type=Path)
    given = arguments.parse_args()
    predictor = Predictor(*load_checkpoint(given.checkpoint)) if given.checkpoint else Predictor.from_checkpoint()
    sources: dict[str, Callable[[], tuple]] = {}
    if given.makehuman:
        sources["MakeHuman"] = lambda: makehuman_faces(given.makehuman, given.count, given.seed)
    if given.ict:
        from affectvlm.synthesis.ict import ICTFace

        sources["ICT-FaceKit"] = lambda: model_faces(ICTFace.load(given.ict), given.count, given.seed)
    from affectvlm.synthesis.procedural import ProceduralFace

    sources["procedural"] = lambda: model_faces(ProceduralFace(), given.count, given.seed)
    result = {}
    for name, make in sources.items():
        scans, labels, levels = make()
        result[name] = {
            "known pose": known_pose(predictor, Faces(scans, labels, levels, predictor.model.image_size)),
            "end to end": end_to_end(predictor, scans[: given.turned], labels[: given.turned], given.seed),
        }
        print(name, json.dumps(result[name]["known pose"]["three views, normals"]["emotions"]), flush=True)
        print(name, json.dumps(result[name]["end to end"]), flush=True)
        if scans[0].colors is not None:
            drawn = scans[: given.turned], labels[: given.turned], levels[: given.turned]
            result[name]["rendered photos"] = from_photos(predictor, drawn, given.seed)
            print(name, json.dumps(result[name]["rendered photos"]), flush=True)
    rng = np.random.default_rng(given.seed)
    objects = [random_object(rng) for _ in range(60)]
    result["objects"] = end_to_end(predictor, objects, [LABELS.index("no face")] * len(objects), given.seed)
    print("objects", json.dumps(result["objects"]))
    if given.scan:
        result["real scan"] = predictor.predict(given.scan).to_dict()
        print("real scan", json.dumps(result["real scan"]))
    if given.output:
        given.output.write_text(json.dumps(result, indent=2), "utf-8")


if __name__ == "__main__":
    main()
