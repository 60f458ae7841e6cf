"""Asking a model in other words: a face's stored features against any sentences, without looking at the face again.

The image tower's work, the features of a face, is done once; what a person changes is text. A new sentence is encoded
once, everything after it is arithmetic on unit vectors. With f the feature of a face (of all views or of one) and t_i
the features of the sentences of a row:

    similarity to a sentence = f · t_i      feature of the row = mean(t_i), made unit length      logits = scale f · row

and from the logits to probabilities as in `predictor`. With the checkpoint's own sentences this is the answer of the
`Predictor`, by the same operations.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from affectvlm.predictor import NO_FACE, certainty_word

if TYPE_CHECKING:
    import torch

    from affectvlm.model import Card, MultiviewCLIP
    from affectvlm.prompts import PromptSet

MAX_REMEMBERED = 4000  # sentences; 1 kB each at 256 numbers


@dataclass(frozen=True, eq=False)
class FaceFeatures:
    """What the image tower makes of one face.

    Attributes:
        views: (N, D) float32 of unit length, one a view, in the order of the card's view names.
        fused: (D,) float32 of unit length, of all views that are present.
        present: (N,) bool.
    """

    views: np.ndarray
    fused: np.ndarray
    present: np.ndarray

    def only(self, view: int) -> FaceFeatures:
        """The face as that view alone shows it."""
        return FaceFeatures(self.views, self.views[view], np.arange(len(self.views)) == view)


@dataclass(frozen=True, eq=False)
class Answer:
    """What a model says of a face in given words.

    Attributes:
        emotion, confidence, certainty: the most probable class, its probability, and that in words.
        probabilities: class → probability; they sum to 1.
        rejection: rejection row → softmax mass.
    """

    emotion: str
    confidence: float
    certainty: str
    probabilities: dict[str, float]
    rejection: dict[str, float]


class TextFeatures:
    """Features of sentences under one model, each encoded once. Thread-safe; forgets the longest unused.

    Args:
        known: sentence → feature (D,) of what was encoded before; read, never changed or forgotten.
    """

    def __init__(self, model: MultiviewCLIP, known: Mapping[str, np.ndarray] | None = None) -> None:
        self._model, self._known = model, known or {}
        self._features: OrderedDict[str, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._features)

    def __contains__(self, text: str) -> bool:
        return text in self._features or text in self._known

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """(P, D) float32 of unit length; only what is new is encoded."""
        import torch

        with self._lock:
            new = [text for text in dict.fromkeys(texts) if text not in self]
            if new:
                with torch.inference_mode():
                    encoded = self._model.encode_prompts(new).cpu().numpy()
                self._features.update(zip(new, encoded, strict=True))
            result = np.stack([self._get(text) for text in texts])
            while len(self._features) > MAX_REMEMBERED:
                self._features.popitem(last=False)
        return result

    def _get(self, text: str) -> np.ndarray:
        if text in self._features:
            self._features.move_to_end(text)
            return self._features[text]
        return self._known[text]


class ZeroShot:
    """A model that answers in any words; made from a `Predictor`'s model and card. Safe to share among threads.

    Attributes:
        texts: features of sentences, the checkpoint's own among them.
    """

    def __init__(self, model: MultiviewCLIP, card: Card) -> None:
        self.model, self.card = model, card
        own = [text for row in card.prompts.rows for text in card.prompts.bank_prompts(row)]
        self._own = dict(zip(own, TextFeatures(model)(own), strict=True))
        self.texts = self.text_features()

    def text_features(self) -> TextFeatures:
        """A memory of sentences that starts with the checkpoint's own: for a session that brings others."""
        return TextFeatures(self.model, self._own)

    def features(self, views: np.ndarray, present: np.ndarray | None = None) -> FaceFeatures:
        """Look at a face.

        Args:
            views: (N, H, W, 3) uint8 RGB as the model sees them (`Prediction.inputs`).
            present: (N,) bool, which of them are there; None = all.
        """
        import torch

        present = np.ones(len(views), bool) if present is None else np.asarray(present, bool)
        with torch.inference_mode():
            each = self.model.encode_views(self._pixels(views[None]))  # (1, N, D)
            mask = torch.from_numpy(present)[None].to(each.device)
            fused = self.model.aggregate(each, mask)
        return FaceFeatures(each[0].cpu().numpy(), fused[0].cpu().numpy(), present)

    def fused_features(self, views: np.ndarray) -> np.ndarray:
        """Look at B faces at once, all views present: (B, N, H, W, 3) uint8 → (B, D) float32 of unit length."""
        import torch

        with torch.inference_mode():
            return self.model(self._pixels(views)).cpu().numpy()

    def bank(self, prompts: PromptSet, texts: TextFeatures | None = None) -> np.ndarray:
        """(K + R, D) float32 of unit length: a feature for each row of the set."""
        import torch
        import torch.nn.functional as F

        rows = [prompts.bank_prompts(row) for row in prompts.rows]
        features = torch.from_numpy((texts or self.texts)([text for row in rows for text in row]))
        means = [part.mean(dim=0) for part in features.split([len(row) for row in rows])]
        return F.normalize(torch.stack(means), dim=-1).numpy()

    def shares(self, features: np.ndarray, bank: np.ndarray, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
        """(B, D) features of faces, (K + R, D) bank → (B, K) class probabilities and (B, R) rejected masses, float64.

        Raises:
            ValueError: more classes than rows.
        """
        import torch

        from affectvlm.model import probabilities

        device = self.model.logit_scale.device
        with torch.inference_mode():
            logits = self.model.logits(torch.from_numpy(features).to(device), torch.from_numpy(bank).to(device))
            parts = probabilities(logits, n_classes, self.card.temperature, self.card.rejection_margin)
        classes, rejected = (part.double().cpu().numpy() for part in parts)
        return classes / classes.sum(axis=1, keepdims=True), rejected

    def answer(
        self, face: FaceFeatures, prompts: PromptSet, texts: TextFeatures | None = None, doubt: float = 0.0
    ) -> Answer:
        """What the model says of a face in the words of a set.

        Args:
            texts: remembers the features of the set's sentences.
            doubt: share of everything that goes to "no face" (`predictor.pose_doubt`), where the set has that row.
        """
        shares, rejected = self.shares(face.fused[None], self.bank(prompts, texts), len(prompts.classes))
        shares, rejected = shares[0], rejected[0]
        if doubt and NO_FACE in prompts.rejection:
            shares = (1 - doubt) * shares + doubt / len(shares)
            rejected = (1 - doubt) * rejected
            rejected[prompts.rejection.index(NO_FACE)] += doubt
        best = int(shares.argmax())
        return Answer(
            emotion=prompts.classes[best],
            confidence=float(shares[best]),
            certainty=certainty_word(float(shares[best])),
            probabilities=dict(zip(prompts.classes, map(float, shares), strict=True)),
            rejection=dict(zip(prompts.rejection, map(float, rejected), strict=True)),
        )

    def log_probabilities(self, features: np.ndarray, bank: np.ndarray, n_classes: int) -> np.ndarray:
        """(B, D), (K + R, D) → (B, K + R) float64 log-softmax over all rows, at the card's temperature and margin.

        Unlike the probability shown, this has no share of the rejected mass in it: it says how the row itself stands.
        """
        logits = float(self.model.logit_scale) * features.astype(np.float64) @ bank.astype(np.float64).T
        logits[:, n_classes:] += self.card.rejection_margin
        logits /= self.card.temperature
        logits -= logits.max(axis=1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))

    def _pixels(self, views: np.ndarray) -> torch.Tensor:
        """(B, N, H, W, 3) uint8 → (B, N, 3, H, W) on the model's device."""
        import torch

        pixels = torch.from_numpy(np.ascontiguousarray(views.transpose(0, 1, 4, 2, 3)))
        return pixels.to(self.model.logit_scale.device)


def similarities(features: np.ndarray, text_features: np.ndarray) -> np.ndarray:
    """Cosines of unit vectors: (D,) or (B, D) with (P, D) → (P,) or (B, P), -1 to 1."""
    return np.clip(features @ text_features.T, -1.0, 1.0)
