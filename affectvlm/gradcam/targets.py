"""What a map explains: an emotion against all else, one emotion against another, or words of one's own.

A target is a score of the joint feature of all views, so that each view's map says what that view gave to the answer.
With s the logit scale over the temperature of the calibration, z the feature (D,), v the target's own text feature and
u_j those it stands against:

    score(z) = s z·v - log sum_j exp(s z·u_j)        (no u: the first term alone)

For an emotion against the other emotions and "neutral" this is its log-odds, and the sigmoid of it the emotion's share
among them; against one row, the difference of two logits. Plain logits rise and fall together with how much there is of
a face; differences do not. For the same reason "no face" is left aside: the question is why fear, not why a face.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from affectvlm.model import MultiviewCLIP

NO_FACE = "no face"


@dataclass(frozen=True, eq=False)
class Target:
    """A score of features; see the module's docstring.

    Attributes:
        name: in words, such as "fear", "fear rather than surprise", or the prompt.
        toward: (D,) float32 text feature of unit length.
        against: (A, D) float32 text features, A = 0 for none.
        temperature: of the calibration, > 0.
    """

    name: str
    toward: Tensor
    against: Tensor
    temperature: float = 1.0

    def score(self, model: MultiviewCLIP, z: Tensor) -> Tensor:
        """(B, D) joint features → (B,) float32."""
        scale = model.logit_scale / self.temperature
        own = scale * z @ self.toward
        return own - torch.logsumexp(scale * z @ self.against.T, dim=-1) if len(self.against) else own

    @property
    def is_share(self) -> bool:
        """Whether `readable` gives a share (else a cosine)."""
        return len(self.against) > 0

    def readable(self, model: MultiviewCLIP, score: float) -> float:
        """A score as people read it: the share in [0, 1] that the target has among what it stands against, or the
        cosine in [-1, 1] of plain words."""
        if self.is_share:
            return float(torch.sigmoid(torch.tensor(score, dtype=torch.float64)))
        return score * self.temperature / float(model.logit_scale)


def emotion_target(bank: Tensor, rows: Sequence[str], name: str, temperature: float = 1.0) -> Target:
    """An emotion (or rejection row) against all other rows of the text bank but NO_FACE.

    Args:
        bank: (K + R, D) as `MultiviewCLIP.text_bank` gives it.
        rows: its names, K + R of them (`PromptSet.rows`).
        name: one of them.
        temperature: of the calibration (`Card.temperature`).

    Raises:
        ValueError: no such row.
    """
    index = _row(rows, name)
    bank = _detached(bank)
    others = [i for i, row in enumerate(rows) if i != index and row != NO_FACE]
    return Target(name, bank[index], bank[others], temperature)


def contrast_target(bank: Tensor, rows: Sequence[str], name: str, other: str, temperature: float = 1.0) -> Target:
    """Why `name` and not `other`: the difference of their logits; arguments as for `emotion_target`.

    Raises:
        ValueError: no such row, or twice the same.
    """
    if name == other:
        raise ValueError(f"a contrast is between two emotions; got {name!r} twice")
    bank = _detached(bank)
    title = f"{name} rather than {other}"
    return Target(title, bank[_row(rows, name)], bank[_row(rows, other)][None], temperature)


def prompt_target(model: MultiviewCLIP, prompt: str, other: str | None = None) -> Target:
    """Words of one's own: how like them the face is; with `other`, how much more than like those.

    Raises:
        ValueError: no words, or twice the same.
    """
    words = [" ".join(text.split()) for text in (prompt, other) if text is not None]
    if not all(words) or len(set(words)) < len(words):
        raise ValueError(f"prompts are {words}; some words are needed, and two different ones for a contrast")
    with torch.no_grad():
        features = _detached(model.encode_prompts(words))
    return Target(" rather than ".join(f"“{text}”" for text in words), features[0], features[1:])


def _row(rows: Sequence[str], name: str) -> int:
    if name not in rows:
        raise ValueError(f"there is no {name!r}; one of {', '.join(rows)} is needed")
    return list(rows).index(name)


def _detached(features: Tensor) -> Tensor:
    """A plain tensor: one made under `inference_mode`, as a predictor's bank is, cannot take part in a gradient."""
    return features.detach().clone().float()
