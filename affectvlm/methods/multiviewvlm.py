"""MultiviewVLM, without labels: views meet prompts of pseudo-labels, and each other, in one space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from affectvlm.config import OptimConfig
from affectvlm.losses import MultiviewVLMLoss
from affectvlm.losses.multiview import NO_LABEL
from affectvlm.methods.base import Method
from affectvlm.methods.gathering import gather
from affectvlm.model import MultiviewCLIP
from affectvlm.model.tuning import TuningConfig
from affectvlm.prompts import PromptSet


class Pseudolabelled(Method):
    """A method that learns from pseudo-labels.

    A batch is a dict: views (B, N, 3, S, S) uint8 and index (B,) int64 of the faces; there are no labels in it.

    Attributes:
        targets: (n,) int64 of all faces, set by `rounds.Rounds`: rows of the prompts, or NO_LABEL.
    """

    def __init__(
        self, model: MultiviewCLIP, tuning: TuningConfig, optim: OptimConfig, prompts: PromptSet, seed: int
    ) -> None:
        super().__init__(model, tuning, optim)
        self.prompts, self.seed = prompts, seed
        self.targets: Tensor | None = None

    def words(self, rows: Tensor, index: Tensor) -> Tensor:
        """(B, D): the feature of a prompt for each sample's pseudo-label, drawn anew every step.

        What a sample gets does not depend on who else is in the batch, nor on the rank.
        """
        return self.encode_words(draw_words(self.prompts, rows.tolist(), index.tolist(), self.seed, self.global_step))


class MultiviewVLM(Pseudolabelled):
    """Wires model, pseudo-labels and `MultiviewVLMLoss`."""

    def __init__(
        self,
        model: MultiviewCLIP,
        loss: MultiviewVLMLoss,
        tuning: TuningConfig,
        optim: OptimConfig,
        prompts: PromptSet,
        seed: int = 0,
    ) -> None:
        super().__init__(model, tuning, optim, prompts, seed)
        self.loss = loss

    def training_step(self, batch: dict[str, Any], step: int) -> Tensor:
        rows = self.targets[batch["index"]]
        z, text = gather(self.encode_views(batch["views"])), gather(self.words(rows, batch["index"]))
        terms = self.loss(z, text, gather(rows), self.model.logit_scale)
        self.log_dict({f"train/{name}": value.detach() for name, value in terms.items()})
        return terms["loss"]


def draw_words(prompts: PromptSet, rows: Sequence[int], index: Sequence[int], seed: int, step: int) -> list[str]:
    """A prompt for each row, without anything said of the subject; for NO_LABEL one of the first row stands in."""
    return [
        prompts.bank_prompts(prompts.rows[0])[0]
        if row == NO_LABEL
        else prompts.draw(prompts.rows[row], None, np.random.default_rng([seed, 11, step, sample]))
        for row, sample in zip(rows, index, strict=True)
    ]
