"""Train the pose network: python -m affectvlm.pose.train --ict PATH [--steps 900]

Heads of the ICT-FaceKit model (a checkout or the packed file) with random identities and action units, in random scenes
(`training_data`). Scenes are made first, by one process a core, then read in random order.
"""

from __future__ import annotations

import argparse
import logging
import math
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch.nn import functional

from affectvlm.pose.network import TOKENS, UNIT, WEIGHTS, PoseNetwork, Prediction
from affectvlm.pose.training_data import Head, head_from_scan, make_example
from affectvlm.synthesis.base import FaceModel
from affectvlm.synthesis.ict import ICTFace

logger = logging.getLogger(__name__)

HEAD_REACH = 170.0  # mm from the nose tip within which coordinates are asked for
OFF_FACE_WEIGHT = 0.25  # of a head point that is not face, in the coordinate loss


def make_heads(model: FaceModel, count: int, rng: np.random.Generator) -> list[Head]:
    """`count` heads of new identities, each with up to seven random action units, now and then on one side only."""
    heads = []
    for _ in range(count):
        units = rng.choice(model.action_units, rng.integers(0, 8), replace=False)
        action_units = {str(u) + rng.choice(["", "", "L", "R"]): float(rng.random()) for u in units}
        heads.append(head_from_scan(model.generate(model.sample_identity(rng), action_units), rng))
    return heads


def make_examples(ict: str, seed: int, heads: int, count: int) -> dict[str, np.ndarray]:
    """`count` examples as half-precision arrays (count, N, 3), and `face` (count, N) bool."""
    rng = np.random.default_rng(seed)
    pool = make_heads(ICTFace.load(ict), heads, rng)
    examples = [make_example(pool[rng.integers(heads)], rng) for _ in range(count)]
    reach = 10 * UNIT
    return {
        "points": np.stack([e.sample.points for e in examples]).clip(-20, 20).astype(np.float16),
        "normals": np.stack([e.sample.normals for e in examples]).astype(np.float16),
        "target": np.stack([e.target for e in examples]).clip(-reach, reach).astype(np.float16),
        "face": np.stack([e.face for e in examples]),
    }


def collect(ict: str, count: int, workers: int, chunk: int = 1000, seed: int = 0) -> dict[str, torch.Tensor]:
    """`count` examples made by `workers` processes, 60 new heads for each `chunk` of them."""
    jobs = math.ceil(count / chunk)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(make_examples, ict, seed + 1 + job, 60, chunk) for job in range(jobs)]
        parts = [future.result() for future in futures]
    return {key: torch.from_numpy(np.concatenate([part[key] for part in parts])) for key in parts[0]}


def batch_of(data: dict[str, torch.Tensor], rows: torch.Tensor, generator: torch.Generator) -> tuple:
    """(points, normals, token, target, face) of some rows, with random tokens and, half the time, mirrored."""
    points, normals, target = (data[k][rows].float() for k in ("points", "normals", "target"))
    mirror = torch.where(torch.rand(len(rows), 1, generator=generator) < 0.5, -1.0, 1.0)
    for values in (points, normals, target):
        values[..., 0] *= mirror
    token = torch.rand(len(rows), points.shape[1], generator=generator).argsort(1)[:, :TOKENS]
    picked = token[..., None].expand(-1, -1, 3)
    return points, normals, token, target.gather(1, picked) / UNIT, data["face"][rows].gather(1, token)


def losses(out: Prediction, target: torch.Tensor, face: torch.Tensor) -> dict[str, torch.Tensor]:
    """Named scalars: `coords` Laplace likelihood of the coordinates, `face` and `presence` cross entropies,
    `error_mm` the mean distance on face points (for the eye, no gradient is meant to flow)."""
    present = face.any(1)
    near = (target.norm(dim=-1) * UNIT < HEAD_REACH) & present[:, None]
    weight = torch.where(face, 1.0, OFF_FACE_WEIGHT) * near
    # x is asked for twice: with sign (hard: two sides look alike) and without (always known).
    miss = (out.coords - target).abs()
    miss = miss[..., 1] + miss[..., 2] + 0.3 * miss[..., 0] + (out.side - target[..., 0].abs()).abs()
    likelihood = miss / out.spread.exp() + 2.0 * out.spread
    total = weight.sum().clamp_min(1)
    distance = (out.coords - target).detach()[..., 1:].norm(dim=-1)
    return {
        "coords": (likelihood * weight).sum() / total + 0.5 * (miss * weight).sum() / total,
        "face": functional.binary_cross_entropy_with_logits(out.face, face.float()),
        "presence": functional.binary_cross_entropy_with_logits(out.presence, present.float()),
        "error_mm": UNIT * (distance * face).sum() / face.sum().clamp_min(1),
        "side_right": (((out.coords[..., 0] * target[..., 0]) > 0) & face).sum() / face.sum().clamp_min(1),
    }


def fit(
    data: dict[str, torch.Tensor],
    steps: int,
    batch: int = 32,
    rate: float = 2e-3,
    seed: int = 0,
    network: PoseNetwork | None = None,
) -> PoseNetwork:
    """Train for `steps`, with a short warm-up and a cosine decay; the last 500 examples are held out. A `network` goes
    on from where it is."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    network = network or PoseNetwork()
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.01, betas=(0.9, 0.98))
    count = len(data["face"]) - 500
    held_out = batch_of(data, torch.arange(count, count + 500), generator)
    mean: dict[str, float] = {}
    for step in range(steps):
        if step % (count // batch) == 0:
            order = torch.randperm(count, generator=generator)
        rows = order[batch * (step % (count // batch)) :][:batch]
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        points, normals, token, target, face = batch_of(data, rows, generator)
        parts = losses(network(points, normals, token), target, face)
        loss = parts["coords"] + parts["face"] + 0.3 * parts["presence"]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        mean = {k: 0.98 * mean.get(k, v.item()) + 0.02 * v.item() for k, v in parts.items()}
        if (step + 1) % 100 == 0:
            logger.info("step %d of %d: %s", step + 1, steps, _words(mean))
    with torch.no_grad():
        parts = losses(network(*held_out[:3]), *held_out[3:])
    logger.info("held out: %s", _words({k: v.item() for k, v in parts.items()}))
    return network


def _words(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in values.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ict", required=True, help="ICT-FaceKit: a checkout or the packed .npz")
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--examples", type=int, default=30_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name(WEIGHTS))
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.workers)
    started = time.monotonic()
    data = collect(args.ict, args.examples, args.workers)
    logger.info("%d examples in %.0f s", len(data["face"]), time.monotonic() - started)
    network = fit(data, args.steps)
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, args.output)
    logger.info("saved %s", args.output.name)


if __name__ == "__main__":
    main()
