"""AffectVLM, the supervised method: mixed views meet augmented textual prompts under the learnable-margin loss."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from affectvlm.config import LossConfig, OptimConfig
from affectvlm.data import UNITS
from affectvlm.losses import AffectVLMLoss
from affectvlm.methods.base import Method
from affectvlm.methods.gathering import gather
from affectvlm.model import MultiviewCLIP
from affectvlm.model.tuning import TuningConfig
from affectvlm.prompts import PromptSet


class AffectVLM(Method):
    """Wires model and loss.

    A batch is a dict: views (B, N, 3, S, S) uint8, labels (B,) int64 into the prompts' rows, prompts, B tuples of N
    strings: every view's own words for its sample's class, perhaps bears (B, rows) bool and words (B, N) int64 where
    samples have several classes (`losses.AffectVLMLoss`), perhaps weight (B,) float32, and perhaps units (B, U)
    float32, action-unit intensities for an auxiliary term that is no part of the model. On several ranks each brings
    its rows, and the loss sees all of them.
    """

    def __init__(
        self,
        model: MultiviewCLIP,
        loss: AffectVLMLoss,
        tuning: TuningConfig,
        optim: OptimConfig,
        weights: LossConfig,
    ) -> None:
        super().__init__(model, tuning, optim)
        self.loss, self.weights = loss, weights
        self.unit_head = _unit_head(model.embed_dim) if weights.units else None

    def training_step(self, batch: dict[str, Any], step: int) -> Tensor:
        views = self.encode_views(batch["views"])
        z, text = gather(views), gather(self._encode_words(batch["prompts"]))
        more = {name: gather(batch[name]) for name in ("weight", "bears", "words") if name in batch}
        terms = self.loss(z, gather(batch["labels"]), text, self.model.logit_scale, **more)
        if self.unit_head is not None:
            terms["units"] = self._unit_error(z, gather(batch["units"]))
            terms["loss"] = terms["loss"] + self.weights.units * terms["units"]
        self.log_dict({f"train/{name}": value.detach() for name, value in terms.items()})
        return terms["loss"]

    def _encode_words(self, prompts: Sequence[Sequence[str]]) -> Tensor:
        """(B, N, D): the feature of each view's prompt."""
        features = self.encode_words([text for row in prompts for text in row])
        return features.view(len(prompts), -1, self.model.embed_dim)

    def _unit_error(self, z: Tensor, units: Tensor) -> Tensor:
        """Cross-entropy of each view's action units with the intensities in [0, 1] that made the face; NaN = not
        known."""
        with torch.autocast(z.device.type, enabled=False):
            guess = self.unit_head(8.0 * z.float())
        truth = units[:, None].expand_as(guess)
        known = ~truth.isnan()
        return F.binary_cross_entropy_with_logits(guess[known], truth[known]) if known.any() else guess.sum() * 0.0

    def extra_groups(self) -> Iterable[dict[str, Any]]:
        """The auxiliary head at the full rate, the margin at its own and undecayed."""
        if self.unit_head is not None:
            yield {"params": list(self.unit_head.parameters()), "weight_decay": self.optim.weight_decay}
        yield {"params": list(self.loss.parameters()), "weight_decay": 0.0, "lr": self.weights.margin_lr}


def separate_words(model: MultiviewCLIP, prompts: PromptSet, steps: int, seed: int, each: int = 6) -> float:
    """Teach a random text tower which prompts belong together, before any face is seen; returns the last loss.

    Both towers of a small CLIP trained from random weights tend to the same point: the fastest way down is the mean.
    With the words of the classes apart from the start, images have somewhere to go.
    """
    rng = np.random.default_rng([seed, 7])
    words = [p for name, p in model.clip.named_parameters() if not name.startswith("visual.") and p.ndim > 0]
    optimizer = torch.optim.AdamW(words, lr=5e-4, weight_decay=0.05, betas=(0.9, 0.98))
    target = torch.arange(len(prompts.rows), device=words[0].device).repeat_interleave(each)
    value = 0.0
    for _ in range(steps):
        pool = [prompts.draw(row, None, rng) for row in prompts.rows for _ in range(each)]
        features = model.encode_prompts(pool)
        centres = F.normalize(features.view(len(prompts.rows), each, -1).mean(dim=1), dim=-1)
        loss = F.cross_entropy(model.logits(features, centres), target)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(words, 1.0)
        optimizer.step()
        value = float(loss.detach())
    model.zero_grad()
    return value


def _unit_head(width: int) -> nn.Linear:
    """Starts at the rate at which action units occur: from random logits the fastest way to "hardly any" would be to
    move all faces toward one point."""
    head = nn.Linear(width, len(UNITS))
    nn.init.zeros_(head.weight)
    nn.init.constant_(head.bias, -2.0)
    return head
