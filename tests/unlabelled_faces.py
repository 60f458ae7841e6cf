"""Tiny faces without pixels worth looking at, a tiny model, and a training of them: what tests without labels share."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

import train
from affectvlm.config import TrainConfig, load
from affectvlm.launching import place
from affectvlm.methods.building import build_method, tuning_of, uses_pseudo_labels
from affectvlm.methods.rounds import Rounds
from affectvlm.methods.unlabelled import Unlabelled
from affectvlm.model.clip import MultiviewCLIP, from_config
from affectvlm.model.tuning import prepare
from affectvlm.prompts import PromptSet
from affectvlm.runs import CONFIG, Run

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
PROMPTS = PromptSet.load()
SETTINGS = (
    "views.size=32", "optim.batch=8", "optim.steps=6", "optim.warmup=1", "optim.lr=1e-3", "optim.precision=fp32",
    "optim.ema=0.5", "run.every=1", "run.validate=1", "data.loaders=1", "pseudo.epochs=1", "pseudo.per_class=1",
    "pseudo.classes=[happy, angry, sad]", "pseudo.restarts=1", "pseudo.dominance=1",
)  # fmt: skip


def tiny_model() -> MultiviewCLIP:
    torch.manual_seed(0)
    model = from_config("tiny", TINY)
    model.clip.visual.to(memory_format=torch.channels_last)  # as train.py does
    return model


def write_faces(folder: Path, labels: list[int] | None, count: int = 20, size: int = 36) -> Path:
    """A shard of `count` faces whose looks depend on their number alone; listed with labels, or without any."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(5)
    kinds = rng.integers(0, 256, (3, 3, 6, 6, 7))
    views = np.stack([np.kron(kinds[i % 3], np.ones((1, size // 6, size // 6, 1))) for i in range(count)])
    views = np.clip(views + rng.normal(0, 20, views.shape), 0, 255).astype(np.uint8)
    views[..., 6] = 255
    records = [{"photo": i % 7 == 3} for i in range(count)]
    if labels is not None:
        for i, record in enumerate(records):
            record |= {
                "label": labels[i], "intensity": 0.1 * (labels[i] + 1), "picture": False, "subject": f"s{i}",
                "source": "made", "units": [0.1 * labels[i]] * 24, "metadata": {"sex": "female"},
            }  # fmt: skip
    np.save(folder / "shard_0000.npy", views)
    (folder / "shard_0000.json").write_text(json.dumps(records))
    return folder


def config_of(method: str, *settings: str) -> TrainConfig:
    return load(TrainConfig, None, [*SETTINGS, f"method={method}", *settings])


def fit(faces: Unlabelled, config: TrainConfig, folder: Path, resume: bool = False, observe=None, score=None):
    """Train as train.py does; returns the method, with its averaged weights, and its rounds."""
    model = tiny_model()
    tuning = tuning_of(config)
    prepare(model, tuning)
    method = build_method(config, model, PROMPTS, tuning)
    run = Run.open(folder, resume)
    run.write(CONFIG, lambda path: path.write_text("{}"))
    hooks = []
    if uses_pseudo_labels(method):
        hooks = [
            Rounds(
                faces, PROMPTS, config.pseudo, config.optim.steps, config.optim.batch, config.run.seed,
                event=run.event, observe=observe,
            )
        ]  # fmt: skip
    try:
        train.fit(method, faces, PROMPTS, config, run, resume, place(1, 1), score, hooks)
        train.take_average(method, run)
    finally:
        run.close()
    return method, hooks[0] if hooks else None


def on_ranks(faces: Path, folder: Path, words: list[str]) -> None:
    """The same on two processes of this machine, run by each of them: `words` are the method and its settings."""
    from affectvlm.launching import rank
    from affectvlm.methods.gathering import synchronise_batch_norm

    config, placement = config_of(words[0], *words[1:]), place(2, 1)
    shown = Unlabelled.open([faces])
    model = tiny_model()
    tuning = tuning_of(config)
    prepare(model, tuning)
    method = synchronise_batch_norm(build_method(config, model, PROMPTS, tuning))
    run = Run.open(folder) if rank(placement) == 0 else Run.follow(folder)
    optim = config.optim
    hooks = [Rounds(shown, PROMPTS, config.pseudo, optim.steps, optim.batch, config.run.seed, event=run.event)]
    train.fit(method, shown, PROMPTS, config, run, False, placement, None, hooks)
    run.close()
