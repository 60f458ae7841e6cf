"""The mean face the fit aligns scans to, with its main ways to vary: python -m affectvlm.pose.template --ict PATH

Built once from a face model with fixed topology and shipped as `face_template.npz`. The shipped one is derived from
ICT-FaceKit (MIT licence, Copyright (c) 2020 USC Institute for Creative Technologies; its text is in
`face_template.LICENSE.txt`).
"""

from __future__ import annotations

import argparse
import functools
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np

from affectvlm.pose.sampling import even_subset
from affectvlm.pose.training_data import is_face, visible
from affectvlm.scan import vertex_normals
from affectvlm.synthesis.base import FaceModel

FILE = "face_template.npz"
POINTS = 1100
MODES = 16
FACES = 500  # sampled for mean and modes


class Template(NamedTuple):
    """points, normals: (P, 3) float64, canonical mm; weight: (P,) how much a point says about the pose, low about the
    mouth; modes: (K, P, 3) float64, one standard deviation each."""

    points: np.ndarray
    normals: np.ndarray
    weight: np.ndarray
    modes: np.ndarray


@functools.cache
def shipped_template() -> Template:
    with resources.files(__package__).joinpath(FILE).open("rb") as file, np.load(file, allow_pickle=False) as pack:
        return Template(*(pack[key].astype(np.float64) for key in Template._fields))


def build(model: FaceModel, rng: np.random.Generator) -> Template:
    """Mean and principal modes of `FACES` random faces of a model, at an even subset of its vertices."""
    faces = [_random_face(model, rng) for _ in range(FACES)]
    triangles = faces[0].faces
    shapes = np.stack([face.vertices for face in faces]).astype(np.float64)
    mean = shapes.mean(axis=0)
    normals = vertex_normals(mean, triangles).astype(np.float64)
    outer = np.flatnonzero(is_face(mean) & visible(mean, [0, 0, 1], 5.0, 3.0) & (normals[:, 2] > 0.05))
    chosen = outer[even_subset(mean[outer], POINTS, rng)]
    offsets = (shapes[:, chosen] - mean[chosen]).reshape(FACES, -1)
    _, values, axes = np.linalg.svd(offsets, full_matrices=False)
    modes = axes[:MODES].reshape(MODES, -1, 3) * (values[:MODES] / np.sqrt(FACES - 1))[:, None, None]
    return Template(mean[chosen], normals[chosen], _weight(mean[chosen], offsets), modes)


def _random_face(model: FaceModel, rng: np.random.Generator):
    units = rng.choice(model.action_units, rng.integers(0, 6), replace=False)
    return model.generate(model.sample_identity(rng), {str(unit): float(rng.random()) for unit in units})


def _weight(points: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Low where faces differ much from one another, by expression above all."""
    varies = np.sqrt((offsets.reshape(len(offsets), -1, 3) ** 2).sum(axis=2).mean(axis=0))  # (P,) mm
    return 1 / (1 + (varies / 5.0) ** 2)


def main() -> None:
    from affectvlm.synthesis.ict import ICTFace

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ict", required=True, help="ICT-FaceKit: a checkout or the packed .npz")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name(FILE))
    args = parser.parse_args()
    template = build(ICTFace.load(args.ict), np.random.default_rng(0))
    note = (
        "Mean and principal modes of faces sampled from ICT-FaceKit (https://github.com/ICT-VGL/ICT-FaceKit). "
        "MIT licence, Copyright (c) 2020 USC Institute for Creative Technologies. Canonical frame, millimetres."
    )
    arrays = {name: value.astype(np.float32) for name, value in template._asdict().items()}
    arrays["modes"] = arrays["modes"].astype(np.float16)
    np.savez_compressed(args.output, note=note, **arrays)


if __name__ == "__main__":
    main()
