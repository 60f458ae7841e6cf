"""What all methods share: the encoders with their caches, and the optimiser with its schedule."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from affectvlm.augmentation.on_device import unpack
from affectvlm.config import OptimConfig
from affectvlm.model import MultiviewCLIP
from affectvlm.model.tuning import TuningConfig, optimizer_groups

_TOGETHER = 8  # prompts that a text tower at rest encodes at once: four times as fast as one by one, few fillers
_SHORT = 100
"""Tokens up to which attention trains faster on a CPU by plain products of matrices: the fused kernel is several times
as slow in bf16 (of 10 tokens four times, of 32 to 77 twice; of 197 it is the faster one)."""
_FILLERS = tuple(f"filler {place}" for place in range(_TOGETHER))


class Method(pl.LightningModule):
    """A model in training.

    Attributes:
        model: what is trained and exported; all else of a method stays behind.
        tuning: says which of its parameters are trained, and how fast.
    """

    def __init__(self, model: MultiviewCLIP, tuning: TuningConfig, optim: OptimConfig) -> None:
        super().__init__()
        self.model, self.tuning, self.optim = model, tuning, optim
        self._view_tower = torch.compile(model.encode_views, dynamic=False) if optim.compile else model.encode_views
        self._known_words: dict[str, Tensor] = {}
        self._short = {"image": _is_short(model, "image") and not optim.compile, "text": _is_short(model, "text")}

    def on_after_batch_transfer(self, batch: dict[str, Any], _: int) -> dict[str, Any]:
        """Makes the pixels here where the loader left them to the device; several drawings follow each other."""
        if "packed" not in batch:
            return batch
        packed = batch.pop("packed")
        views = [unpack(part) for part in ([packed] if isinstance(packed, dict) else packed)]
        return {**batch, "views": torch.cat(views, dim=1)}

    def encode_views(self, views: Tensor) -> Tensor:
        """(B, N, D): the feature of each view, as the model has it."""
        with self._attention("image"):
            return self._view_tower(views)

    def encode_words(self, texts: Sequence[str]) -> Tensor:
        """(P, D): the feature of each prompt. A text tower at rest reads each only once."""
        if any(p.requires_grad for p in self._text_parameters()):
            with self._attention("text"):
                return self.model.encode_prompts(texts)
        with torch.no_grad():
            new = [text for text in dict.fromkeys(texts) if text not in self._known_words]
            for start in range(0, len(new), _TOGETHER):
                part = new[start : start + _TOGETHER]
                # always as many: rounding depends on how many are encoded at once, not on which or in what order,
                # and a resumed run meets words in another order
                filled = [*part, *_FILLERS[len(part) :]]
                self._known_words.update(zip(part, self.model.encode_prompts(filled), strict=False))
        return torch.stack([self._known_words[text] for text in texts])

    def extra_groups(self) -> Iterable[dict[str, Any]]:
        """What the optimiser trains beside the model; nothing here."""
        return ()

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW over what `tuning` trains and over `extra_groups`."""
        optim = self.optim
        groups = optimizer_groups(self.model, self.tuning, optim.lr, optim.weight_decay, optim.text_lr)
        optimizer = torch.optim.AdamW([*groups, *self.extra_groups()], lr=optim.lr, betas=(0.9, 0.98))
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self._learning_rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _learning_rate(self, step: int) -> float:
        """Linear warm-up, then a cosine to 1 % of the peak."""
        if step < self.optim.warmup:
            return (step + 1) / self.optim.warmup
        done = (step - self.optim.warmup) / max(1, self.optim.steps - self.optim.warmup)
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))

    def _attention(self, tower: str) -> AbstractContextManager:
        """How a tower attends in training; rounding apart, the result is the same."""
        return sdpa_kernel(SDPBackend.MATH) if self._short[tower] and self.device.type == "cpu" else nullcontext()

    def _text_parameters(self) -> list[nn.Parameter]:
        return [p for name, p in self.model.clip.named_parameters() if not name.startswith("visual.") and p.ndim > 0]


def _is_short(model: MultiviewCLIP, tower: str) -> bool:
    """Whether all sequences of a tower ("image" or "text") are short; not where it does not say how long they are."""
    lengths = [
        len(places)
        for name, places in model.clip.named_parameters()
        if name.endswith("positional_embedding") and name.startswith("visual.") == (tower == "image")
    ]
    return bool(lengths) and max(lengths) <= _SHORT
