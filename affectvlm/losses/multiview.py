"""The unsupervised loss of MultiviewVLM: prompts of pseudo-labels, the multiview term, positive and negative pairs.

After Eq. 1 to 8 of "Unsupervised Multiview Contrastive Language-Image Joint Learning with Pseudo-Labeled Prompts Via
Vision-Language Model for 3D/4D Facial Expression Recognition" (Behzad). Where we read it freely:

* Eq. 6 and 8 sum over pairs, we take means: the scale does not depend on the batch;
* Eq. 8 is printed without its minus sign, and minimising it as printed would pull negatives together. The text wants
  their similarity minimised, so it is -log(1 - sigmoid(sim));
* the sigmoid of a bare cosine lies in [0.27, 0.73], so neither term could come near 0: the cosine is multiplied by
  `pair_scale` first (10 by default, a temperature of 0.1);
* Eq. 1 and 2 take every other prompt of the batch as a negative. With six classes most of a batch's repeats are prompts
  of the same class, so those are left out of the sums unless `false_negatives`; with them the equations are as printed;
* samples without a pseudo-label (not confident enough) take part in the positive pairs alone, which need none.

Tensors in, named scalars out; no ranks, no gathering: hand in the features of all ranks.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NO_LABEL = -1
"""The pseudo-label of a sample that has none."""


class MultiviewVLMLoss(nn.Module):
    """The loss of a batch of B samples seen in N views, D wide.

    Args:
        contrastive, multiview, positive, negative: factors of the terms in the total; 0 turns a term off.
        pair_scale: multiplies the cosine inside the sigmoid of the pair terms, > 0.
        false_negatives: True keeps other prompts of a sample's own class among its negatives, as Eq. 1 and 2 print it.

    Raises:
        ValueError: a factor below 0, or a pair_scale that is not positive.
    """

    def __init__(
        self,
        contrastive: float = 1.0,
        multiview: float = 1.0,
        positive: float = 1.0,
        negative: float = 1.0,
        pair_scale: float = 10.0,
        false_negatives: bool = False,
    ) -> None:
        super().__init__()
        self.factors = {"contrastive": contrastive, "multiview": multiview, "positive": positive, "negative": negative}
        if min(self.factors.values()) < 0:
            raise ValueError(f"factors are {self.factors}; none below 0 is needed")
        if not pair_scale > 0:
            raise ValueError(f"pair_scale is {pair_scale}; a positive number is needed")
        self.pair_scale, self.false_negatives = pair_scale, false_negatives

    def forward(self, z: Tensor, text: Tensor, rows: Tensor, logit_scale: Tensor | float) -> dict[str, Tensor]:
        """The total under "loss", and its terms.

        Args:
            z: (B, N, D) features of the views, of unit length.
            text: (B, D) feature of a prompt of each sample's pseudo-label, of unit length; whatever where it has none.
            rows: (B,) integers, pseudo-labels; NO_LABEL where there is none.
            logit_scale: factor on the cosines of images and prompts, 1 / tau.

        Returns:
            Scalars. "contrastive": mean over views of ½ (Eq. 1 + Eq. 2). "multiview": Eq. 4, mean of |mean of the
            views - prompt|. "positive": Eq. 6, mean over the pairs of views of each sample. "negative": Eq. 8, mean
            over pairs of views of samples with different pseudo-labels. "labelled": share of samples with one. A term
            without any sample or pair is 0, with a gradient of 0.

        Raises:
            ValueError: shapes that do not fit.
        """
        _check(z, text, rows)
        with torch.autocast(z.device.type, enabled=False):
            z, text = _full(z), _full(text)
            known = rows != NO_LABEL
            nothing = nothing_of(z, text, logit_scale)
            named, words, classes = z[known], text[known], rows[known]
            terms = {
                "contrastive": self._contrastive(named, words, classes, logit_scale) if len(named) else nothing,
                "multiview": _multiview(named, words) if len(named) else nothing,
                "positive": positive_pairs(z, self.pair_scale),
                "negative": negative_pairs(named, classes, self.pair_scale) if len(named) else nothing,
            }
        total = sum((self.factors[name] * term for name, term in terms.items()), start=nothing)
        return {"loss": total, **terms, "labelled": known.float().mean()}

    def _contrastive(self, z: Tensor, text: Tensor, classes: Tensor, scale: Tensor | float) -> Tensor:
        grouped = None if self.false_negatives else classes
        return torch.stack([contrastive(view, text, scale, grouped) for view in z.unbind(dim=1)]).mean()


def contrastive(images: Tensor, text: Tensor, scale: Tensor | float, classes: Tensor | None = None) -> Tensor:
    """Eq. 3: half of image-to-text (Eq. 1) and half of text-to-image (Eq. 2), a scalar.

    Args:
        images, text: (N, D) of unit length; row i of one belongs to row i of the other.
        scale: 1 / tau.
        classes: (N,) integers; pairs of one class other than a row's own are left out of its sum. None = all are in.
    """
    logits = scale * images @ text.T
    if classes is not None:
        own = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
        logits = logits.masked_fill((classes[:, None] == classes) & ~own, -torch.inf)
    image_to_text = -logits.log_softmax(dim=1).diagonal().mean()
    text_to_image = -logits.log_softmax(dim=0).diagonal().mean()
    return (image_to_text + text_to_image) / 2


def positive_pairs(z: Tensor, scale: float) -> Tensor:
    """Eq. 5 and 6: mean of -log sigmoid(scale * cosine) over the pairs of views of each sample; (B, N, D) → scalar, 0
    for a single view."""
    first, second = torch.triu_indices(z.shape[1], z.shape[1], offset=1, device=z.device)
    if not len(first):
        return z.sum() * 0.0
    return F.softplus(-scale * (z[:, first] * z[:, second]).sum(dim=-1)).mean()


def negative_pairs(z: Tensor, classes: Tensor, scale: float) -> Tensor:
    """Eq. 7 and 8 with its sign: mean of -log(1 - sigmoid(scale * cosine)) over all pairs of views of samples of
    different classes; (B, N, D) and (B,) → scalar, 0 for a single class."""
    items, owners = z.flatten(0, 1), classes.repeat_interleave(z.shape[1])
    apart = owners[:, None] != owners
    values = F.softplus(scale * items @ items.T)  # -log(1 - sigmoid(x)) = softplus(x)
    return (values * apart).sum() / apart.sum().clamp(min=1)


def nothing_of(*inputs: Tensor | float) -> Tensor:
    """0 that hangs on every input: ranks expect a gradient of each trained parameter in each step, be it 0."""
    return sum(part.sum() * 0.0 for part in inputs if isinstance(part, Tensor))


def _multiview(z: Tensor, text: Tensor) -> Tensor:
    """Eq. 4: the mean is not brought to unit length, so views that disagree stay away from the prompt."""
    return torch.linalg.vector_norm(z.mean(dim=1) - text, dim=-1).mean()


def _full(features: Tensor) -> Tensor:
    """float32 at least."""
    return features if features.dtype == torch.float64 else features.float()


def _check(z: Tensor, text: Tensor, rows: Tensor) -> None:
    if z.ndim != 3 or 0 in z.shape:
        raise ValueError(f"views are {tuple(z.shape)}; (B, N, D) is needed")
    if text.shape != (len(z), z.shape[2]):
        raise ValueError(f"prompts are {tuple(text.shape)}; ({len(z)}, {z.shape[2]}) is needed")
    if rows.shape != z.shape[:1] or rows.is_floating_point():
        raise ValueError(f"pseudo-labels are {tuple(rows.shape)} {rows.dtype}; ({len(z)},) integers are needed")
