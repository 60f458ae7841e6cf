"""Accuracy of a checkpoint on face families it was not trained on, with known pose and end to end.

    python -m benchmarks.unseen_sources --checkpoint checkpoints/affectvlm-compact --ict ict_face.npz \
        --makehuman makehuman_face.npz --scan LeePerrySmith.glb --output report.json

With known pose: faces in the canonical frame, cropped as the scan path crops them, through `methods.scoring`. End to
end: the same faces as whole heads, turned at random, through `Predictor.predict`, so that errors of the pose count
too. Also what neutral faces, things that are not a face and one real neutral scan get.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from affectvlm.augmentation.views import store
from affectvlm.data import LABELS, clean
from affectvlm.emotions import EKMAN
from affectvlm.methods.scoring import face_logits, report
from affectvlm.metrics import summary
from affectvlm.model import load_checkpoint
from affectvlm.predictor import Predictor
from affectvlm.rendering import DEFAULT_YAWS, HALF_WIDTH_MM, render_buffers
from affectvlm.scan import Scan
from affectvlm.synthesis.expressions import sample_expression
from affectvlm.synthesis.objects import random_object
from benchmarks.makehuman import EMOTIONS, MakeHumanFace, sample_units

INTENSITIES = (1.0, 0.75, 0.5)


class Faces:
    """Rendered faces held in memory, with the attributes that scoring reads."""

    def __init__(self, scans: list[Scan], labels: list[int], intensity: list[float]) -> None:
        self._views = np.stack(
            [store(render_buffers(clean(s), DEFAULT_YAWS, 128, HALF_WIDTH_MM * 128 / 112)) for s in scans]
        )
        self.labels, self.intensity = np.array(labels), np.array(intensity, np.float32)
        self.photo = np.zeros(len(labels), bool)

    def views(self, indices: np.ndarray) -> np.ndarray:
        return self._views[indices]

    def batches(self, size: int):
        for start in range(0, len(self.labels), size):
            yield np.arange(start, min(start + size, len(self.labels)))


def makehuman_faces(path: str, count: int, seed: int) -> tuple[list[Scan], list[int], list[float]]:
    model, rng = MakeHumanFace(path), np.random.default_rng(seed)
    names = list(EMOTIONS)
    scans, labels, levels = [], [], []
    for i in range(count):
        emotion, level = names[i % len(names)], INTENSITIES[(i // len(names)) % 3]
        scans.append(model.express(model.sample_identity(rng), sample_units(emotion, level, rng)))
        labels.append(LABELS.index(emotion))
        levels.append(level if emotion in EKMAN else 0.0)
    return scans, labels, levels


def model_faces(model, count: int, seed: int) -> tuple[list[Scan], list[int], list[float]]:
    """Identities no split of training can hold: their generator is seeded apart."""
    rng = np.random.default_rng([seed, 99])
    names = (*EKMAN, "neutral")
    scans, labels, levels = [], [], []
    for i in range(count):
        emotion, level = names[i % len(names)], INTENSITIES[(i // len(names)) % 3]
        scans.append(model.generate(model.sample_identity(rng), sample_expression(emotion, level, rng)))
        labels.append(LABELS.index(emotion))
        levels.append(level if emotion in EKMAN else 0.0)
    return scans, labels, levels


def known_pose(predictor: Predictor, faces: Faces) -> dict:
    """Every kind of picture with three views; the checkpoint's kind with one and two."""
    model, card = predictor.model, predictor.card
    cases = {f"three views, {kind}": (kind, (0, 1, 2)) for kind in ("normals", "shaded")}
    cases |= {"front view alone": (card.image_kind, (0,)), "front and left view": (card.image_kind, (0, 1)),
              "left view alone": (card.image_kind, (1,))}  # fmt: skip
    return {
        name: report(face_logits(model, card.prompts, faces, kind, views), faces, card.temperature)
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
            "known pose": known_pose(predictor, Faces(scans, labels, levels)),
            "end to end": end_to_end(predictor, scans[: given.turned], labels[: given.turned], given.seed),
        }
        print(name, json.dumps(result[name]["known pose"]["three views, normals"]["emotions"]), flush=True)
        print(name, json.dumps(result[name]["end to end"]), flush=True)
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
