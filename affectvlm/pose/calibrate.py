"""Fit the certainty of a pose: python -m affectvlm.pose.calibrate --ict PATH [--scenes 240]

Random training scenes with and without a face are given to the fit, from the network's start and from a wrong one. What
`evidence` says of each, and whether the pose came out within 20°, makes a logistic regression, whose numbers go into
`frontal.CERTAINTY_WEIGHTS` and `CERTAINTY_BIAS`.
"""

from __future__ import annotations

import argparse
import logging

import numpy as np
from scipy.optimize import minimize

from affectvlm.pose.alignment import Similarity, refine, solve
from affectvlm.pose.frontal import FIT_POINTS, LOOK_CENTER, LOOK_RADIUS, evidence, turn
from affectvlm.pose.network import correspondences, shipped_network
from affectvlm.pose.sampling import SURFACE_POINTS, estimate_normals, take_sample
from affectvlm.pose.template import shipped_template
from affectvlm.pose.train import make_heads
from affectvlm.pose.training_data import empty_scene, face_scene, spoil
from affectvlm.synthesis.ict import ICTFace
from affectvlm.synthesis.procedural import ProceduralFace

logger = logging.getLogger(__name__)

WITHIN = 20.0  # degrees
RIDGE = 0.005


def gather(ict: str, scenes: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Evidence (n, 6) and right (n,) bool of `scenes` scenes, two starts each; a third of the scenes hold no face."""
    heads = make_heads(ICTFace.load(ict), 30, rng) + make_heads(ProceduralFace(), 10, rng)
    values, right = [], []
    for number in range(scenes):
        head = heads[rng.integers(len(heads))]
        empty = number % 3 == 0
        scene = empty_scene(head, rng) if empty else face_scene(head, rng)
        surface = spoil(scene.points[rng.permutation(len(scene.points))[:SURFACE_POINTS]], rng)
        if len(surface) < 600:
            continue
        for candidate, transform in _candidates(surface, rng):
            angle = np.degrees(np.arccos(np.clip((np.trace(transform.rotation) - 1) / 2, -1, 1)))
            values.append(candidate)
            right.append(not empty and angle < WITHIN)
    return np.array(values), np.array(right)


def _candidates(surface: np.ndarray, rng: np.random.Generator) -> list[tuple[np.ndarray, Similarity]]:
    guess, _ = solve(correspondences([take_sample(surface, rng)], shipped_network())[0])
    near = surface[np.linalg.norm(guess.apply(surface) - LOOK_CENTER, axis=1) < LOOK_RADIUS]
    if len(near) < 100:
        return []
    word = correspondences([take_sample(near, rng)], shipped_network())[0]
    start, _ = solve(word)
    axis = rng.normal(size=3)
    off = turn(*(rng.uniform(30, 170) * axis / np.linalg.norm(axis)))
    wrong = Similarity(off @ start.rotation, off @ start.translation, start.scale)
    points = near[:FIT_POINTS]
    normals = estimate_normals(near, points, rng)
    fits = [refine(begin, points, normals, shipped_template(), free_scale=True) for begin in (start, wrong)]
    return [(evidence(fit, word), fit.transform) for fit in fits]


def regress(values: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights (6,) and bias of a logistic regression with a little ridge on standardised evidence."""
    mean, spread = values.mean(axis=0), values.std(axis=0) + 1e-9
    design = np.column_stack([(values - mean) / spread, np.ones(len(values))])
    sign = np.where(right, 1.0, -1.0)

    def loss(w: np.ndarray) -> float:
        return float(np.logaddexp(0, -sign * (design @ w)).mean() + RIDGE * (w[:-1] ** 2).sum())

    best = minimize(loss, np.zeros(design.shape[1])).x
    return best[:-1] / spread, float(best[-1] - (best[:-1] * mean / spread).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ict", required=True, help="ICT-FaceKit: a checkout or the packed .npz")
    parser.add_argument("--scenes", type=int, default=240)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    values, right = gather(args.ict, args.scenes, np.random.default_rng(11))
    weights, bias = regress(values, right)
    certainty = 1 / (1 + np.exp(-(values @ weights + bias)))
    numbers = np.array2string(weights, precision=2, separator=", ")
    logger.info("CERTAINTY_WEIGHTS = np.array(%s); CERTAINTY_BIAS = %.2f", numbers, bias)
    wrong, missed = (certainty >= 0.5) & ~right, (certainty < 0.5) & right
    logger.info(
        "%d poses, %d right; sure but wrong %d, unsure but right %d", len(right), right.sum(), wrong.sum(), missed.sum()
    )


if __name__ == "__main__":
    main()
