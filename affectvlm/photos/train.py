"""Train the face finder: python -m affectvlm.photos.train --ict PATH [--pictures 12000] [--minutes 15]

Heads of the ICT-FaceKit model (a checkout or the packed file) and of our own procedural one in random scenes
(`training_data`). Scenes are made first, by one process a core, then read in random order until the time is up.
"""

from __future__ import annotations

import argparse
import logging
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from affectvlm.emotions import EKMAN
from affectvlm.photos.network import WEIGHTS, FaceFinder, normalised
from affectvlm.photos.training_data import make_picture, make_sprite, targets
from affectvlm.synthesis.expressions import sample_expression
from affectvlm.synthesis.ict import ICTFace
from affectvlm.synthesis.procedural import ProceduralFace

logger = logging.getLogger(__name__)

CHUNK, SPRITES = 1000, 100  # pictures a job, and heads that appear in them
VALIDATION = 1000  # pictures of heads that were not trained on


def make_pictures(ict: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """CHUNK pictures (n, S, S) uint8 and what the network should say of them (n, 8, h, w) float16."""
    rng = np.random.default_rng(seed)
    models = [ICTFace.load(ict), ProceduralFace()]
    sprites = []
    for number in range(SPRITES):
        model = models[number % 2]
        emotion = (*EKMAN, "neutral")[rng.integers(7)]
        units = sample_expression(emotion, float(rng.uniform(0.2, 1)), rng)
        sprites.append(make_sprite(model.generate(model.sample_identity(rng), units), rng))
    pictures = [make_picture(sprites, rng) for _ in range(CHUNK)]
    wanted = np.stack([targets(picture.faces) for picture in pictures]).astype(np.float16)
    return np.stack([picture.image for picture in pictures]), wanted


def collect(ict: str, count: int, workers: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(make_pictures, ict, seed + job) for job in range(-(-count // CHUNK))]
        parts = [job.result() for job in jobs]
    images, wanted = (np.concatenate(part) for part in zip(*parts, strict=True))
    return images, wanted


def losses(out: Tensor, wanted: Tensor) -> dict[str, Tensor]:
    """Named scalars for (B, 7, h, w) outputs and (B, 8, h, w) targets: `face` cross entropy over the cells that count;
    `place`, `size`, `turn` mean absolute errors over the cells that are the middle of a face."""
    is_face, counts = wanted[:, 0], wanted[:, 7]
    entropy = functional.binary_cross_entropy_with_logits(out[:, 0], is_face, reduction="none")
    inner = is_face * counts
    share = inner.sum().clamp(min=1)

    def error(channels: slice) -> Tensor:
        return ((out[:, channels] - wanted[:, channels]).abs().sum(1) * inner).sum() / share

    weight = counts * (1 + 4 * is_face)
    return {
        "face": (entropy * weight).sum() / weight.sum(),
        "place": error(slice(1, 3)),
        "size": error(slice(3, 4)),
        "turn": error(slice(4, 7)),
    }


def train(network: FaceFinder, images: np.ndarray, wanted: np.ndarray, minutes: float, batch: int = 64) -> None:
    """AdamW with a one-cycle rate over the time given."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-4)
    rng, start, step = np.random.default_rng(0), time.monotonic(), 0
    order = np.empty(0, np.int64)
    network.train().to(memory_format=torch.channels_last)
    while (spent := (time.monotonic() - start) / (60 * minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min(1.0, spent / 0.05 + 0.02, (1 - spent) / 0.6)
        if len(order) < batch:
            order = rng.permutation(len(images))
        rows, order = order[:batch], order[batch:]
        with torch.autocast("cpu", torch.bfloat16):
            out = network(normalised(images[rows]).to(memory_format=torch.channels_last))
        parts = losses(out.float(), torch.from_numpy(wanted[rows]).float())
        loss = parts["face"] + parts["place"] + parts["size"] + 0.3 * parts["turn"]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if step % 50 == 0:
            logger.info("step %d, %.0f %%: %s", step, 100 * spent, {k: round(v.item(), 3) for k, v in parts.items()})
        step += 1
    network.eval()


def save(network: FaceFinder, file: Path) -> None:
    """Half precision: finer than the errors that are made."""
    state = {name: value for name, value in network.state_dict().items() if "num_batches" not in name}
    save_file({name: value.half().contiguous() for name, value in state.items()}, file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ict", required=True, help="ICT-FaceKit: a checkout, or the packed .npz")
    parser.add_argument("--pictures", type=int, default=12_000)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name(WEIGHTS))
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    images, wanted = collect(options.ict, options.pictures + VALIDATION, options.workers, seed=1)
    logger.info("%d pictures made", len(images))
    network = FaceFinder()
    train(network, images[VALIDATION:], wanted[VALIDATION:], options.minutes)
    with torch.inference_mode():
        parts = losses(network(normalised(images[:VALIDATION])), torch.from_numpy(wanted[:VALIDATION]).float())
    logger.info("unseen heads: %s", {k: round(v.item(), 4) for k, v in parts.items()})
    save(network, options.output)


if __name__ == "__main__":
    main()
