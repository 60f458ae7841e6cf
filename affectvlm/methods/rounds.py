"""Clustering rounds: every few passes over the faces, the present model says anew what each unlabelled face may be.

A Lightning callback, so that rounds are kept with everything else that a training goes on with: a training resumed
inside a round finds its pseudo-labels in the checkpoint, one resumed between two makes the next ones as it would have.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor

from affectvlm.augmentation.views import NORMALS, PICTURE, SHADED, TEXTURED, plain
from affectvlm.config import PseudoConfig
from affectvlm.methods.clustering import PseudoLabels, pseudo_labels
from affectvlm.methods.unlabelled import Unlabelled
from affectvlm.model import MultiviewCLIP
from affectvlm.prompts import PromptSet

log = logging.getLogger(__name__)

KIND_NUMBERS = {"normals": NORMALS, "shaded": SHADED, "textured": TEXTURED}

Observe = Callable[[PseudoLabels], dict[str, Any]]
"""Says something of pseudo-labels for the log: how right they are, say. Nothing of it comes back into training."""


class Rounds(pl.Callback):
    """Renews the pseudo-labels of a method: `method.targets`, (n,) int64 rows of the text bank or NO_LABEL.

    Args:
        faces: what the method trains on; `targets` are in their order.
        prompts: of the text bank.
        pseudo: settings.
        steps, batch: of the training: how many rounds there will be.
        seed: draws the seeds of the clusters, together with the number of the round.
        kind: how faces are shown when they are clustered: normals, shaded or textured, without any augmentation.
        event: takes ("round", step=..., ...), as `runs.Run.event` does.
        observe: see `Observe`; only the first rank asks it.

    Raises:
        ValueError: `pseudo.classes` names what the prompts do not have.
    """

    def __init__(
        self,
        faces: Unlabelled,
        prompts: PromptSet,
        pseudo: PseudoConfig,
        steps: int,
        batch: int,
        seed: int,
        kind: str = "normals",
        event: Callable[..., None] | None = None,
        observe: Observe | None = None,
    ) -> None:
        self.faces, self.prompts, self.pseudo, self.seed, self.kind = faces, prompts, pseudo, seed, kind
        self.event, self.observe = event, observe
        self.rows = class_rows(prompts, pseudo)
        self.every = max(1, round(pseudo.epochs * len(faces) / batch)) if pseudo.epochs else steps
        self.count = -(-steps // self.every)
        self.number, self.targets = -1, torch.empty(0, dtype=torch.int64)

    def state_dict(self) -> dict[str, Any]:
        return {"number": self.number, "targets": self.targets.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if len(state["targets"]) != len(self.faces):
            raise ValueError(
                f"the run has pseudo-labels of {len(state['targets'])} faces, but there are {len(self.faces)}; "
                "it goes on with the faces it began with"
            )
        self.number, self.targets = int(state["number"]), state["targets"].clone()

    def on_train_batch_start(self, trainer: pl.Trainer, method: pl.LightningModule, *_: Any) -> None:
        number = trainer.global_step // self.every
        if number != self.number:
            self.number = number
            self.targets = self._round(trainer, method)
            method.targets = None
        if method.targets is None:
            method.targets = self.targets.to(method.device)

    def _round(self, trainer: pl.Trainer, method: pl.LightningModule) -> Tensor:
        """(n,) int64 targets; the first rank clusters, all take what it found."""
        average = next((hook for hook in trainer.callbacks if isinstance(hook, WeightAveraging)), None)
        asked = average if self.pseudo.teacher and trainer.global_step else None
        if asked:
            asked.on_validation_epoch_start(trainer, method)  # swaps the averaged weights in
        with torch.no_grad():
            model = method.model.eval()
            features = aggregated(model, self.faces, self.kind, None, trainer.global_rank, trainer.world_size)
            bank, scale = model.text_bank(self.prompts).cpu().numpy(), float(model.logit_scale)
        if asked:
            asked.on_validation_epoch_end(trainer, method)
        method.train()
        targets = torch.empty(len(self.faces), dtype=torch.int64, device=method.device)
        if trainer.is_global_zero:
            found = self.label(features, bank, scale)
            targets.copy_(torch.from_numpy(found.targets))
            self._tell(trainer.global_step, found)
        if trainer.world_size > 1:
            dist.broadcast(targets, 0)
        return targets.cpu()

    def label(self, features: np.ndarray, bank: np.ndarray, scale: float) -> PseudoLabels:
        """The pseudo-labels of this round, `number`, from features (n, D) and text bank (K + R, D)."""
        first, last = self.pseudo.keep
        keep = first + (last - first) * min(self.number / max(self.count - 1, 1), 1.0)
        return pseudo_labels(
            features, bank, scale, np.random.default_rng([self.seed, 13, self.number]), self.rows,
            cluster=self.pseudo.clusters, balance=self.pseudo.balance, per_class=self.pseudo.per_class,
            restarts=self.pseudo.restarts, keep=keep, confidence=self.pseudo.confidence,
            dominance=self.pseudo.dominance, person=self.faces.person,
        )  # fmt: skip

    def _tell(self, step: int, found: PseudoLabels) -> None:
        for part in (found.rows, found.kept, found.confidence):
            part.flags.writeable = False  # an observer looks, and changes nothing
        names = self.prompts.rows
        seen = self.observe(found) if self.observe else {}
        log.info("step %d, round %d of %d: %.0f %% of %d faces kept%s", step, self.number + 1, self.count,
                 100 * found.share, len(self.faces), "".join(f", {k} {v:.3f}" for k, v in seen.items()))  # fmt: skip
        for remark in found.remarks:
            log.warning("round %d: %s", self.number + 1, remark)
        if self.event:
            cohesion = None if np.isnan(found.cohesion) else round(found.cohesion, 4)
            self.event(
                "round", step=step, number=self.number, rounds=self.count, share=round(found.share, 4),
                confidence=round(float(found.confidence.mean()), 4), cohesion=cohesion,
                sizes={names[row]: n for row, n in found.sizes.items()},
                kept={names[row]: n for row, n in found.kept_sizes.items()}, remarks=list(found.remarks), **seen,
            )  # fmt: skip


@torch.no_grad()
def aggregated(
    model: MultiviewCLIP,
    faces: Any,
    kind: str = "normals",
    rows: np.ndarray | None = None,
    rank: int = 0,
    ranks: int = 1,
    batch: int = 64,
) -> np.ndarray:
    """(n, D) float32 unit features of faces seen plainly from all sides, by a model in evaluation mode.

    Of several ranks each does every `ranks`-th batch, and all get all: number for number what a single one gets.

    Args:
        faces: `Unlabelled`, or anything with its views and picture.
        rows: which faces; None = all.
    """
    rows = np.arange(len(faces.picture)) if rows is None else rows
    features = torch.zeros(len(rows), model.embed_dim, device=model.clip.logit_scale.device)
    for start in range(rank * batch, len(rows), ranks * batch):
        indices = rows[start : start + batch]
        stored, picture = faces.views(indices), faces.picture[indices]
        images = plain(stored, KIND_NUMBERS[kind], model.image_size)
        if picture.any():
            images[picture > 0] = plain(stored[picture > 0], PICTURE, model.image_size)
        features[start : start + batch] = model(torch.from_numpy(images))
    if ranks > 1:
        dist.all_reduce(features)  # of zeros and one number: exact
    return features.cpu().numpy()


def class_rows(prompts: PromptSet, pseudo: PseudoConfig) -> np.ndarray:
    """(C,) rows of the text bank that a target has: all of them, or those that `pseudo.classes` names.

    Raises:
        ValueError: a name that the prompts do not have.
    """
    if unknown := [name for name in pseudo.classes if name not in prompts.rows]:
        raise ValueError(f"pseudo.classes names {unknown[0]!r}; there are {', '.join(prompts.rows)}")
    return np.array([prompts.rows.index(name) for name in pseudo.classes or prompts.rows])
