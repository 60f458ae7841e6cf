"""AffectVLM, the supervised method: mixed views meet augmented textual prompts under the learnable-margin loss."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from affectvlm.config import OptimConfig
from affectvlm.losses import AffectVLMLoss
from affectvlm.model import MultiviewCLIP
from affectvlm.prompts import PromptSet


class AffectVLM(pl.LightningModule):
    """Wires model, prompts and loss.

    A batch is a dict: views (B, 3, 3, S, S) uint8, labels (B,) int64 into the prompts' rows. Every view is paired with its own
    prompt of its sample's class. Prompts are drawn anew at each step; a step encodes `prompts_per_step` texts of each class
    and the views draw from those, because a text tower over B x 3 single prompts would cost more than the images do.
    """

    def __init__(
        self, model: MultiviewCLIP, prompts: PromptSet, loss: AffectVLMLoss, optim: OptimConfig, margin_lr: float, seed: int
    ) -> None:
        super().__init__()
        self.model, self.prompts, self.loss = model, prompts, loss
        self.optim, self.margin_lr, self.seed = optim, margin_lr, seed

    def training_step(self, batch: dict[str, Tensor], step: int) -> Tensor:
        z = self.model.encode_views(batch["views"])
        text = self._draw_text(batch["labels"], z.shape[1])
        terms = self.loss(z, batch["labels"], text, self.model.logit_scale)
        self.log_dict({f"train/{name}": value.detach() for name, value in terms.items()})
        return terms["loss"]

    def _draw_text(self, labels: Tensor, views: int) -> Tensor:
        """(B, N, D): for each view the feature of a prompt of its sample's row."""
        rng = np.random.default_rng([self.seed, self.global_step, self.global_rank])
        count, rows = self.optim.prompts_per_step, self.prompts.rows
        pool = [self.prompts.draw(row, None, rng) for row in rows for _ in range(count)]
        features = self.model.encode_prompts(pool).view(len(rows), count, -1)
        choice = torch.from_numpy(rng.integers(count, size=(len(labels), views))).to(labels.device)
        return features[labels[:, None], choice]

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW; no decay on gains, biases, the logit scale and the margin, which has its own learning rate."""
        decay = [p for p in self.model.parameters() if p.ndim > 1]
        plain = [p for p in self.model.parameters() if p.ndim <= 1]
        groups = [
            {"params": decay, "weight_decay": self.optim.weight_decay},
            {"params": plain, "weight_decay": 0.0},
            {"params": list(self.loss.parameters()), "weight_decay": 0.0, "lr": self.margin_lr},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.optim.lr, betas=(0.9, 0.98))
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self._learning_rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _learning_rate(self, step: int) -> float:
        """Linear warm-up, then a cosine to 1 % of the peak."""
        if step < self.optim.warmup:
            return (step + 1) / self.optim.warmup
        done = (step - self.optim.warmup) / max(1, self.optim.steps - self.optim.warmup)
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
