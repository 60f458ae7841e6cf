"""The supervised loss of AffectVLM: multiview contrastive + multiview triplet with a learnable margin + text alignment.

After Eq. 2 of "Contrastive Language-Image Learning with Augmented Textual Prompts for 3D/4D FER Using Vision-Language
Model" (Behzad & Zhao). Where we read it freely:

* the paper sums, we take means: the scale does not depend on the batch;
* triplets are all of them, not a sample: sorted similarities give the sum over negatives in O(M^2 log M) time and
  O(M^2) memory for M views in the batch, exact in value and gradient (the table of all triplets would take M^3);
* the margin lowers one hinge and raises the other, so it drifts with the share of active terms: it is bounded, and
  both shares are reported. Give it a small learning rate of its own and no weight decay;
* CLIP's image-text alignment is added, label-aware: with a handful of classes a batch holds many prompts of one class,
  and each of them is a positive of each view of that class;
* a sample may bear several labels (4DME): faces that share one are alike, and the prompts of each are positives.

Tensors in, named scalars out; no ranks, no gathering: hand in the features of all ranks.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MARGIN_RANGE = (0.05, 0.6)
"""Alpha stays inside: below it hardly any triplet is wrong, above it hardly any pair."""

_FAR = -4.0  # below every cosine less half a margin: sorts what is not a negative behind all that are


class AffectVLMLoss(nn.Module):
    """The loss of a batch of B samples seen in N views, D wide; labels 0 to K-1 are emotions, K and up rejection rows.

    Rejection samples (neutral, no face) take part in the alignment with text, not in the terms between faces: they have
    no emotion to be alike or unlike in.

    Args:
        n_classes: K.
        margin: alpha at the start, strictly inside `margin_range`.
        margin_range: alpha stays inside, whatever the optimiser does. Alpha bounds a cosine in the contrastive term and
            a squared distance (2 - 2 cosine) in the triplet term.
        contrastive, triplet, alignment: factors of the three terms in the total; 0 turns a term off.

    Raises:
        ValueError: a margin outside its range, a factor below 0.
    """

    def __init__(
        self,
        n_classes: int,
        margin: float = 0.2,
        margin_range: tuple[float, float] = MARGIN_RANGE,
        contrastive: float = 1.0,
        triplet: float = 1.0,
        alignment: float = 1.0,
    ) -> None:
        super().__init__()
        low, high = margin_range
        if not low < margin < high:
            raise ValueError(f"margin is {margin}; a number between {low} and {high} is needed")
        if min(contrastive, triplet, alignment) < 0:
            raise ValueError(f"factors are {contrastive}, {triplet}, {alignment}; none below 0 is needed")
        self.n_classes = n_classes
        self.margin_range = (float(low), float(high))
        self.factors = {"contrastive": contrastive, "triplet": triplet, "alignment": alignment}
        share = (margin - low) / (high - low)
        self.raw_margin = nn.Parameter(torch.tensor(math.log(share / (1.0 - share))))

    @property
    def margin(self) -> Tensor:
        """Alpha, a scalar inside `margin_range`."""
        low, high = self.margin_range
        return low + (high - low) * torch.sigmoid(self.raw_margin)

    def forward(
        self,
        z: Tensor,
        labels: Tensor,
        text: Tensor,
        logit_scale: Tensor | float,
        mask: Tensor | None = None,
        weight: Tensor | None = None,
        bears: Tensor | None = None,
        words: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The total under "loss", its parts, and what to log.

        Args:
            z: (B, N, D) features of the views, of unit length.
            labels: (B,) integers; of several labels the first.
            text: (B, N, D) feature of each view's own prompt, of unit length.
            logit_scale: factor on the cosines of images and prompts.
            mask: (B, N) bool, True where a view is present; None = all are. An absent view changes nothing.
            weight: (B,) of each sample, >= 0 (a slight expression may count less); None = 1. A pair weighs the product
                of its two, a triplet of its three.
            bears: (B, R) bool, every label that a sample bears, R above the largest; None = `labels` alone.
            words: (B, N) integers, the label that each view's prompt is about, one that the sample bears; None = the
                sample's label.

        Returns:
            Scalars. "loss" = contrastive * (same + different) + triplet * triplet + alignment * mean(align_views,
            align_mean). "same": mean of 1 - cos over pairs of views of one emotion; "different": mean of
            max(0, cos - alpha) over pairs of two emotions; "triplet": mean of max(0, |a-p|^2 - |a-n|^2 + alpha), p of
            a's emotion in another view, n of another emotion; "align_views", "align_mean": of each view, and of each
            sample's mean over views, with the prompts. Without gradient: "margin" = alpha, "active_different" and
            "active_triplet" = the (weighted) share of hinges above zero. A term without any pair or triplet is 0.

        Raises:
            ValueError: shapes that do not fit.
        """
        _check(z, labels, text, mask, weight)
        words = labels[:, None].expand(z.shape[:2]) if words is None else words
        bears = F.one_hot(labels).bool() if bears is None else bears
        _check_labels(labels, bears, words, z.shape[:2])
        with torch.autocast(z.device.type, enabled=False):
            z, text = _full(z), _full(text)
            present = torch.ones(z.shape[:2], dtype=torch.bool, device=z.device) if mask is None else mask
            weight = torch.ones(len(z), device=z.device) if weight is None else weight
            weight = weight.to(z)[:, None] * present
            z = z.masked_fill(~present[..., None], 0.0)
            text = text.masked_fill(~present[..., None], 0.0)
            parts = self._between_faces(z, labels, bears, weight)
            parts |= _alignment(z, bears, words, text, present, weight, logit_scale)
        terms = {
            "contrastive": parts["same"] + parts["different"],
            "triplet": parts["triplet"],
            "alignment": (parts["align_views"] + parts["align_mean"]) / 2,
        }
        total = sum(self.factors[name] * term for name, term in terms.items())
        return {"loss": total, **parts, "margin": self.margin.detach()}

    def _between_faces(self, z: Tensor, labels: Tensor, bears: Tensor, weight: Tensor) -> dict[str, Tensor]:
        """The contrastive and the triplet term over all M = B * N views of emotion samples."""
        n_views = z.shape[1]
        items = z.flatten(0, 1)  # (M, D)
        emotional = (labels < self.n_classes).repeat_interleave(n_views)
        view = torch.arange(n_views, device=z.device).repeat(len(z))
        weight = weight.flatten() * emotional
        cosine = items @ items.T  # (M, M)
        shared = (bears.float() @ bears.float().T) > 0
        alike = shared.repeat_interleave(n_views, dim=0).repeat_interleave(n_views, dim=1)
        pair = weight[:, None] * weight
        others = ~torch.eye(len(items), dtype=torch.bool, device=z.device)
        margin = self.margin.to(z)
        hinge = F.relu(cosine - margin)
        apart = pair * ~alike
        triplet, active = _triplet(cosine, pair * (alike & (view[:, None] != view)), weight * ~alike, margin)
        return {
            "same": _mean(1.0 - cosine, pair * (alike & others)),
            "different": _mean(hinge, apart),
            "triplet": triplet,
            "active_different": _mean((hinge > 0).to(apart), apart).detach(),
            "active_triplet": active.detach(),
        }


def _triplet(cosine: Tensor, positive: Tensor, negative: Tensor, margin: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of max(0, |a-p|^2 - |a-n|^2 + margin) over all triplets, and the share above zero.

    On the unit sphere the hinge is 2 * max(0, cos(a, n) - t) with t = cos(a, p) - margin / 2. With the negatives of an
    anchor sorted from the most similar down, those above t come first, and running sums give their sum at once.

    Args:
        cosine: (M, M) between anchors (rows) and the others.
        positive, negative: (M, M) weights >= 0 of a column as positive or negative of the row's anchor.
    """
    values, order = cosine.masked_fill(negative == 0, _FAR).sort(dim=1, descending=True)
    weights = negative.gather(1, order)
    sums = F.pad((weights * values).cumsum(dim=1), (1, 0))
    counts = F.pad(weights.cumsum(dim=1), (1, 0))
    threshold = cosine - margin / 2
    above = torch.searchsorted(-values.detach().contiguous(), -threshold.detach().contiguous())
    active = counts.gather(1, above)
    hinges = 2.0 * (sums.gather(1, above) - threshold * active)
    total = _divisor((positive * counts[:, -1:]).sum())
    return (positive * hinges).sum() / total, (positive * active).sum() / total


def _alignment(
    z: Tensor, bears: Tensor, words: Tensor, text: Tensor, present: Tensor, weight: Tensor, scale: Tensor | float
) -> dict[str, Tensor]:
    """Views and samples against all prompts of the batch, absent ones left out."""
    n_views = z.shape[1]
    about = bears[:, words.flatten()]  # (B, B * N): which prompts are about a label of a sample
    columns = (text.flatten(0, 1), present.flatten(), weight.flatten())
    views = (z.flatten(0, 1), present.flatten(), weight.flatten())
    means = (F.normalize(z.sum(dim=1), dim=-1), present.any(dim=1), weight.amax(dim=1))
    return {
        "align_views": _align(views, columns, about.repeat_interleave(n_views, dim=0), scale),
        "align_mean": _align(means, columns, about, scale),
    }


def _align(
    images: tuple[Tensor, ...], prompts: tuple[Tensor, ...], positive: Tensor, scale: Tensor | float
) -> Tensor:  # fmt: skip
    """Both directions of the label-aware InfoNCE; a side is features (n, D), present and weights (n,); positive is
    (images, prompts) bool."""
    (a, a_present, a_weight), (b, b_present, b_weight) = images, prompts
    logits = scale * a @ b.T
    return (_toward(logits, positive, b_present, a_weight) + _toward(logits.T, positive.T, a_present, b_weight)) / 2


def _toward(logits: Tensor, positive: Tensor, present: Tensor, weight: Tensor) -> Tensor:
    """Mean over rows of KL(uniform over the row's positives || softmax of the row): 0 at best, however many."""
    shares = logits.masked_fill(~present, torch.finfo(logits.dtype).min / 2).log_softmax(dim=1)
    positive = positive & present
    count = positive.sum(dim=1).clamp(min=1)
    divergence = -shares.masked_fill(~positive, 0.0).sum(dim=1) / count - count.to(logits).log()
    return _mean(divergence, weight)


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean; 0, with a gradient of 0, where all weights are 0."""
    return (values * weights).sum() / _divisor(weights.sum())


def _divisor(total: Tensor) -> Tensor:
    """The total, or 1 for a sum of nothing."""
    return torch.where(total > 0, total, 1.0)


def _full(features: Tensor) -> Tensor:
    """float32 at least: sums over thousands of pairs need it."""
    return features if features.dtype == torch.float64 else features.float()


def _check(z: Tensor, labels: Tensor, text: Tensor, mask: Tensor | None, weight: Tensor | None) -> None:
    if z.ndim != 3 or 0 in z.shape or text.shape != z.shape:
        raise ValueError(f"views {tuple(z.shape)} and prompts {tuple(text.shape)}; (B, N, D) twice is needed")
    if labels.shape != z.shape[:1] or labels.is_floating_point():
        raise ValueError(f"labels are {tuple(labels.shape)} {labels.dtype}; ({len(z)},) integers are needed")
    if mask is not None and (mask.shape != z.shape[:2] or mask.dtype != torch.bool):
        raise ValueError(f"mask is {tuple(mask.shape)} {mask.dtype}; {tuple(z.shape[:2])} torch.bool is needed")
    if weight is not None and weight.shape != z.shape[:1]:
        raise ValueError(f"weight is {tuple(weight.shape)}; ({len(z)},) is needed")


def _check_labels(labels: Tensor, bears: Tensor, words: Tensor, shape: torch.Size) -> None:
    if bears.ndim != 2 or len(bears) != len(labels) or bears.dtype != torch.bool or int(labels.max()) >= bears.shape[1]:
        raise ValueError(f"bears is {tuple(bears.shape)} {bears.dtype}; ({len(labels)}, R) torch.bool is needed")
    if words.shape != shape or words.is_floating_point() or int(words.max()) >= bears.shape[1]:
        raise ValueError(f"words are {tuple(words.shape)} {words.dtype}; {tuple(shape)} labels below R are needed")
