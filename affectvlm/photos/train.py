"""Train the face finder and the framer: python -m affectvlm.photos.train --ict PATH [--pictures 20000] [--minutes 20]

Heads of the ICT-FaceKit model (a checkout or the packed file) and of our own procedural one in random scenes
(`training_data`). Scenes are made first, by one process a core, then both networks see them in random order, each until
its time is up.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from affectvlm.emotions import EKMAN
from affectvlm.photos.network import FRAMER_WEIGHTS, WEIGHTS, FaceFinder, FaceFramer, normalised
from affectvlm.photos.training_data import Picture, close_up, make_picture, make_sprite, targets
from affectvlm.synthesis.expressions import sample_expression
from affectvlm.synthesis.ict import ICTFace
from affectvlm.synthesis.procedural import ProceduralFace

logger = logging.getLogger(__name__)

CHUNK, SPRITES = 1000, 110  # pictures a job, and heads that appear in them
VALIDATION = 1000  # pictures of heads that were not trained on
BATCH = 64
RATE = 3e-3

Batch = tuple[Tensor, Tensor]


def make_pictures(ict: str, seed: int) -> list[Picture]:
    """CHUNK scenes with heads of their own."""
    rng = np.random.default_rng(seed)
    models = [ICTFace.load(ict), ProceduralFace()]
    sprites = []
    for number in range(SPRITES):
        model = models[number % 2]
        emotion = (*EKMAN, "neutral")[rng.integers(7)]
        units = sample_expression(emotion, float(rng.uniform(0.2, 1)), rng)
        sprites.append(make_sprite(model.generate(model.sample_identity(rng), units), rng))
    return [make_picture(sprites, rng) for _ in range(CHUNK)]


def collect(ict: str, count: int, workers: int, seed: int) -> list[Picture]:
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(make_pictures, ict, seed + job) for job in range(-(-count // CHUNK))]
        return [picture for job in jobs for picture in job.result()]


def finder_batch(pictures: list[Picture], rng: np.random.Generator) -> Batch:
    """(B, 1, S, S) pictures, (B, 8, h, w) what the finder should say."""
    images = normalised(np.stack([picture.image for picture in pictures]))
    return images, torch.from_numpy(np.stack([targets(picture.faces) for picture in pictures]))


def framer_batch(pictures: list[Picture], rng: np.random.Generator) -> Batch:
    """(B, 1, s, s) close-ups, half of them mirrored, (B, 8, 1, 1) what the framer should say, all of it counting."""
    images, said = (np.stack(part) for part in zip(*(close_up(picture, rng) for picture in pictures), strict=True))
    mirrored = rng.random(len(images)) < 0.5
    images[mirrored] = images[mirrored, :, ::-1]
    said[np.ix_(mirrored, [1, 4, 6])] *= -1  # dx, the sine of yaw, and roll change sides
    return normalised(images), torch.from_numpy(np.column_stack([said, np.ones(len(said), np.float32)]))[
        ..., None, None
    ]


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


def train(network: nn.Module, pictures: list[Picture], batch_of: Callable[..., Batch], minutes: float) -> None:
    """AdamW with a one-cycle rate over the time given, in bfloat16."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=1e-4)
    rng, start, step = np.random.default_rng(0), time.monotonic(), 0
    network.train().to(memory_format=torch.channels_last)
    while (spent := (time.monotonic() - start) / (60 * minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, spent / 0.05 + 0.02, (1 - spent) / 0.6)
        images, wanted = batch_of([pictures[i] for i in rng.integers(0, len(pictures), BATCH)], rng)
        with torch.autocast("cpu", torch.bfloat16):
            out = network(images.to(memory_format=torch.channels_last))
        parts = losses(out.float().reshape(len(out), 7, *wanted.shape[2:]), wanted)
        loss = parts["face"] + parts["place"] + parts["size"] + 0.3 * parts["turn"]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if step % 100 == 0:
            logger.info("step %d, %.0f %%: %s", step, 100 * spent, {k: round(v.item(), 3) for k, v in parts.items()})
        step += 1
    network.eval()


def validate(network: nn.Module, pictures: list[Picture], batch_of: Callable[..., Batch]) -> dict[str, float]:
    images, wanted = batch_of(pictures, np.random.default_rng(1))
    with torch.inference_mode():
        parts = losses(network(images).reshape(len(images), 7, *wanted.shape[2:]), wanted)
    return {name: round(value.item(), 4) for name, value in parts.items()}


def save(network: nn.Module, file: Path) -> None:
    """Half precision: finer than the errors that are made."""
    state = {name: value for name, value in network.state_dict().items() if "num_batches" not in name}
    save_file({name: value.half().contiguous() for name, value in state.items()}, file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ict", required=True, help="ICT-FaceKit: a checkout, or the packed .npz")
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--minutes", type=float, default=20.0, help="for each of the two networks")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="folder for the weights")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    pictures = collect(options.ict, options.pictures + VALIDATION, options.workers, seed=1)
    unseen, seen = pictures[:VALIDATION], pictures[VALIDATION:]
    logger.info("%d pictures made", len(pictures))
    for network, batch_of, file in (
        (FaceFinder(), finder_batch, WEIGHTS),
        (FaceFramer(), framer_batch, FRAMER_WEIGHTS),
    ):
        train(network, seen, batch_of, options.minutes)
        logger.info("%s, on unseen heads: %s", file, validate(network, unseen, batch_of))
        save(network, options.output / file)


if __name__ == "__main__":
    main()
