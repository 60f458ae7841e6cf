"""AffectVLM, the supervised method: mixed views meet augmented textual prompts under the learnable-margin loss."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from affectvlm.config import LossConfig, OptimConfig
from affectvlm.data import UNITS
from affectvlm.losses import AffectVLMLoss
from affectvlm.model import MultiviewCLIP
from affectvlm.prompts import PromptSet


class AffectVLM(pl.LightningModule):
    """Wires model, prompts and loss.

    A batch is a dict: views (B, N, 3, S, S) uint8, labels (B,) int64 into the prompts' rows, and perhaps units (B, U)
    float32, action-unit intensities for an auxiliary term that is no part of the model. Every view is paired with its
    own prompt of its sample's class. Prompts are drawn anew at each step; a step encodes `prompts_per_step` texts of
    each class and the views draw from those, because a text tower over B x 3 single prompts would cost more than the
    images do.
    """

    def __init__(
        self,
        model: MultiviewCLIP,
        prompts: PromptSet,
        loss: AffectVLMLoss,
        optim: OptimConfig,
        weights: LossConfig,
        seed: int,
    ) -> None:
        super().__init__()
        self.model, self.prompts, self.loss = model, prompts, loss
        self.optim, self.weights, self.seed = optim, weights, seed
        self.unit_head = nn.Linear(model.embed_dim, len(UNITS)) if weights.units else None
        self._encode_views = torch.compile(model.encode_views, dynamic=False) if optim.compile else model.encode_views

    def setup(self, stage: str) -> None:
        """A text tower whose rate is 0 is left out of the gradients altogether, which saves a fifth of a step."""
        if stage == "fit" and not self.optim.text_lr:
            for parameter in self._text_parameters():
                parameter.requires_grad_(False)

    def training_step(self, batch: dict[str, Tensor], step: int) -> Tensor:
        z = self._encode_views(batch["views"])
        text = self._draw_text(batch["labels"], z.shape[1])
        terms = self.loss(z, batch["labels"], text, self.model.logit_scale)
        if self.unit_head is not None:
            terms["units"] = self._unit_error(z, batch["units"])
            terms["loss"] = terms["loss"] + self.weights.units * terms["units"]
        self.log_dict({f"train/{name}": value.detach() for name, value in terms.items()})
        return terms["loss"]

    def separate_words(self) -> float:
        """Teach the text tower which prompts belong together, before any face is seen; returns the last loss.

        Both towers of a small CLIP trained from random weights tend to the same point: the fastest way down is the
        mean. With the words of the classes apart from the start, images have somewhere to go.
        """
        rows, each = self.prompts.rows, 6
        rng = np.random.default_rng([self.seed, 7])
        optimizer = torch.optim.AdamW(
            self._text_parameters(), lr=5e-4, weight_decay=self.optim.weight_decay, betas=(0.9, 0.98)
        )
        target = torch.arange(len(rows)).repeat_interleave(each)
        value = 0.0
        for _ in range(self.optim.word_steps):
            pool = [self.prompts.draw(row, None, rng) for row in rows for _ in range(each)]
            features = self.model.encode_prompts(pool)
            centres = F.normalize(features.view(len(rows), each, -1).mean(dim=1), dim=-1)
            loss = F.cross_entropy(self.model.logits(features, centres), target.to(features.device))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self._text_parameters(), self.optim.clip)
            optimizer.step()
            value = float(loss.detach())
        self.zero_grad()
        return value

    def _unit_error(self, z: Tensor, units: Tensor) -> Tensor:
        """Cross-entropy of each view's action units with the intensities in [0, 1] that made the face; NaN = no
        face."""
        with torch.autocast(z.device.type, enabled=False):
            guess = self.unit_head(8.0 * z.float())
        truth = units[:, None].expand_as(guess)
        known = ~truth.isnan()
        return F.binary_cross_entropy_with_logits(guess[known], truth[known]) if known.any() else guess.sum() * 0.0

    def _text_parameters(self) -> list[nn.Parameter]:
        return [p for name, p in self.model.clip.named_parameters() if not name.startswith("visual.") and p.ndim > 0]

    def _draw_text(self, labels: Tensor, views: int) -> Tensor:
        """(B, N, D): for each view the feature of a prompt of its sample's row."""
        rng = np.random.default_rng([self.seed, self.global_step, self.global_rank])
        count, rows = self.optim.prompts_per_step, self.prompts.rows
        pool = [self.prompts.draw(row, None, rng) for row in rows for _ in range(count)]
        features = self.model.encode_prompts(pool).view(len(rows), count, -1)
        choice = torch.from_numpy(rng.integers(count, size=(len(labels), views))).to(labels.device)
        return features[labels[:, None], choice]

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW; no decay on gains, biases, the logit scale and the margin. Text tower and margin have their own
        rates."""
        text = {id(p) for p in self._text_parameters()}
        image = [p for p in self.model.parameters() if id(p) not in text]
        image += [] if self.unit_head is None else list(self.unit_head.parameters())
        decay, slow = self.optim.weight_decay, self.optim.lr * self.optim.text_lr
        groups = [
            {"params": [p for p in image if p.ndim > 1], "weight_decay": decay},
            {"params": [p for p in image if p.ndim <= 1], "weight_decay": 0.0},
            {"params": list(self.loss.parameters()), "weight_decay": 0.0, "lr": self.weights.margin_lr},
        ]
        if slow:
            groups.append({"params": self._text_parameters(), "weight_decay": decay, "lr": slow})
        optimizer = torch.optim.AdamW(groups, lr=self.optim.lr, betas=(0.9, 0.98))
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self._learning_rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _learning_rate(self, step: int) -> float:
        """Linear warm-up, then a cosine to 1 % of the peak."""
        if step < self.optim.warmup:
            return (step + 1) / self.optim.warmup
        done = (step - self.optim.warmup) / max(1, self.optim.steps - self.optim.warmup)
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
