"""Losses of redundancy: SMILE-VLM's three terms, MiFaR's two, and the alarms that tell when features collapse.

Barlow Twins (Zbontar et al., ICML 2021): each of two projections is standardised feature by feature over the batch;
their cross-correlation C should be the identity: sum of (1 - C_ii)^2 + lambda * sum of C_ij^2. We divide by the number
of features, so that the scale does not depend on it.

* SMILE-VLM ("Self-Supervised Multi-View Representation Learning Using Vision-Language Model for 3D/4D Facial Expression
  Recognition", of which an abstract was at hand): decorrelation over every pair of views, contrastive alignment of
  views with the prompts of pseudo-labels, and the same decorrelation between image and text projections.
* MiFaR ("Self-Supervised Learning via Multi-View Facial Rendezvous for 3D/4D Affect Recognition", Behzad & Zhao, FG
  2021), without any text: two distortions of each view are correlated with each other, and so are the views.

Tensors in, named scalars out; no ranks: the correlation is that of the whole batch when the features of all ranks are
handed in, gathered with gradient. (A raw all-reduce of C would scale gradients by 1 / ranks.)
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from affectvlm.losses.multiview import NO_LABEL, contrastive, nothing_of

_FLAT = 1e-6  # added to variances: a feature that is the same for all samples becomes 0, not NaN


class SmileVLMLoss(nn.Module):
    """The loss of a batch of B samples seen in N views: features D wide, projections P wide.

    Args:
        decorrelation, alignment, redundancy: factors of the three terms in the total; 0 turns a term off.
        off_diagonal: lambda, the weight of the off-diagonal part.

    Raises:
        ValueError: a factor below 0.
    """

    def __init__(
        self, decorrelation: float = 1.0, alignment: float = 1.0, redundancy: float = 1.0, off_diagonal: float = 0.005
    ) -> None:
        super().__init__()
        self.factors = {"decorrelation": decorrelation, "alignment": alignment, "redundancy": redundancy}
        if min(*self.factors.values(), off_diagonal) < 0:
            raise ValueError(f"factors are {self.factors}, lambda is {off_diagonal}; none below 0 is needed")
        self.off_diagonal = off_diagonal

    def forward(
        self,
        z: Tensor,
        projected: Tensor,
        text: Tensor,
        projected_text: Tensor,
        rows: Tensor,
        logit_scale: Tensor | float,
    ) -> dict[str, Tensor]:
        """The total under "loss", its terms, and the alarms.

        Args:
            z: (B, N, D) features of the views, of unit length. projected: (B, N, P) their projections.
            text: (B, D) feature of a prompt of each sample's pseudo-label. projected_text: (B, P) its projection.
            rows: (B,) integers, pseudo-labels; NO_LABEL where there is none: such samples are in no term with text.
            logit_scale: factor on the cosines of images and prompts.

        Returns:
            Scalars. "decorrelation": mean over pairs of views. "alignment": mean over views of Eq. 3 of MultiviewVLM.
            "redundancy": between the mean of the views' projections and that of the prompt; 0 with fewer than two
            pseudo-labelled samples. "labelled": share of samples with a pseudo-label. Alarms without gradient:
            "diagonal" (mean of C_ii over pairs of views, falls to 0 where views share nothing), "off_diagonal" (root
            mean square of C_ij, rises to 1 where all features say the same) and "rank" (`effective_rank` of the
            samples' mean features, falls to 1 where all samples become one point).

        Raises:
            ValueError: shapes that do not fit, or a batch of one, which has no correlation.
        """
        _check_pairs(z, projected, text, projected_text, rows)
        with torch.autocast(z.device.type, enabled=False):
            z, projected, text, projected_text = map(_full, (z, projected, text, projected_text))
            known = rows != NO_LABEL
            nothing = nothing_of(z, projected, text, projected_text, logit_scale)
            pairs = [(projected[:, i], projected[:, j]) for i, j in _pairs(z.shape[1])]
            decorrelation, diagonal, off = _mean_twins(pairs, self.off_diagonal, nothing)
            alignment = redundancy = nothing
            if known.any():
                views = z[known].unbind(dim=1)
                alignment = torch.stack([contrastive(v, text[known], logit_scale, rows[known]) for v in views]).mean()
            if known.sum() > 1:
                image = projected[known].mean(dim=1)
                redundancy = barlow_twins(image, projected_text[known], self.off_diagonal)["loss"]
        terms = {"decorrelation": decorrelation, "alignment": alignment, "redundancy": redundancy}
        total = sum((self.factors[name] * term for name, term in terms.items()), start=nothing)
        alarms = {"diagonal": diagonal, "off_diagonal": off, "rank": effective_rank(z.mean(dim=1))}
        return {"loss": total, **terms, "labelled": known.float().mean(), **alarms}


class MifarLoss(nn.Module):
    """The loss of a batch of B samples in N views, each distorted twice, with projections P wide.

    Args:
        distortions, views: factors of the two terms; 0 turns a term off.
        off_diagonal: lambda, the weight of the off-diagonal part.

    Raises:
        ValueError: a factor below 0.
    """

    def __init__(self, distortions: float = 1.0, views: float = 1.0, off_diagonal: float = 0.005) -> None:
        super().__init__()
        self.factors = {"distortions": distortions, "views": views}
        if min(*self.factors.values(), off_diagonal) < 0:
            raise ValueError(f"factors are {self.factors}, lambda is {off_diagonal}; none below 0 is needed")
        self.off_diagonal = off_diagonal

    def forward(self, projected: Tensor) -> dict[str, Tensor]:
        """The total under "loss", its terms, and the alarms of `SmileVLMLoss`, of all pairs together.

        Args:
            projected: (B, 2, N, P) projections: both distortions of every view.

        Returns:
            Scalars. "distortions": mean over views of the twins of one view; "views": mean over pairs of views, the
            first in one distortion and the second in the other. "diagonal", "off_diagonal", "rank" without gradient.

        Raises:
            ValueError: another shape, or a batch of one.
        """
        if projected.ndim != 4 or projected.shape[1] != 2 or 0 in projected.shape:
            raise ValueError(f"projections are {tuple(projected.shape)}; (B, 2, N, P) is needed")
        _check_batch(len(projected))
        with torch.autocast(projected.device.type, enabled=False):
            projected = _full(projected)
            nothing = projected.sum() * 0.0
            one, other = projected.unbind(dim=1)
            same = [(one[:, view], other[:, view]) for view in range(one.shape[1])]
            across = [pair for i, j in _pairs(one.shape[1]) for pair in ((one[:, i], other[:, j]),
                      (other[:, i], one[:, j]))]  # fmt: skip
            distortions, diagonal, off = _mean_twins(same, self.off_diagonal, nothing)
            views = _mean_twins(across, self.off_diagonal, nothing)[0]
        total = self.factors["distortions"] * distortions + self.factors["views"] * views
        rank = effective_rank(projected.mean(dim=(1, 2)))
        return {
            "loss": total, "distortions": distortions, "views": views, "diagonal": diagonal, "off_diagonal": off,
            "rank": rank,
        }  # fmt: skip


def cross_correlation(a: Tensor, b: Tensor) -> Tensor:
    """(P, P): C[i, j] is the correlation of feature i of `a` with feature j of `b`, (B, P) each, over the batch.

    A feature that does not vary has a correlation of 0 with everything.

    Raises:
        ValueError: fewer than two samples, or shapes that differ.
    """
    if a.ndim != 2 or a.shape != b.shape:
        raise ValueError(f"projections are {tuple(a.shape)} and {tuple(b.shape)}; (B, P) twice is needed")
    _check_batch(len(a))
    return _standardised(a).T @ _standardised(b) / len(a)


def barlow_twins(a: Tensor, b: Tensor, off_diagonal: float = 0.005) -> dict[str, Tensor]:
    """ "loss" = (sum of (1 - C_ii)^2 + off_diagonal * sum of C_ij^2 over i != j) / P; and without gradient "diagonal",
    the mean of C_ii, and "off_diagonal", the root mean square of the others (0 for P = 1)."""
    c = cross_correlation(a, b)
    diagonal = c.diagonal()
    rest = c.square().sum() - diagonal.square().sum()
    width = len(c)
    return {
        "loss": ((1 - diagonal).square().sum() + off_diagonal * rest) / width,
        "diagonal": diagonal.mean().detach(),
        "off_diagonal": (rest.detach().clamp(min=0) / max(width * (width - 1), 1)).sqrt(),
    }


@torch.no_grad()
def effective_rank(features: Tensor) -> Tensor:
    """exp of the entropy of the normalised singular values of centred features (B, D) (Roy & Vetterli, EUSIPCO 2007):
    between 1, where they lie on a line (or at one point), and min(B - 1, D)."""
    values = torch.linalg.svdvals(_full(features) - _full(features).mean(dim=0))
    total = values.sum()
    if not total > 0:
        return torch.ones_like(total)
    shares = values / total
    return torch.special.entr(shares).sum().exp()


def _mean_twins(
    pairs: Iterable[tuple[Tensor, Tensor]], off_diagonal: float, nothing: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Means over pairs of the loss, of the diagonal and of the rest; `nothing` and zeros where there is no pair."""
    found = [barlow_twins(a, b, off_diagonal) for a, b in pairs]
    if not found:
        return nothing, nothing.detach(), nothing.detach()
    return tuple(torch.stack([part[name] for part in found]).mean() for name in ("loss", "diagonal", "off_diagonal"))


def _standardised(x: Tensor) -> Tensor:
    centred = x - x.mean(dim=0)
    return centred * torch.rsqrt(centred.square().mean(dim=0) + _FLAT)


def _pairs(count: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(count) for j in range(i + 1, count)]


def _full(features: Tensor) -> Tensor:
    """float32 at least."""
    return features if features.dtype == torch.float64 else features.float()


def _check_batch(count: int) -> None:
    if count < 2:
        raise ValueError(f"a batch of {count}; two samples at least are needed for a correlation")


def _check_pairs(z: Tensor, projected: Tensor, text: Tensor, projected_text: Tensor, rows: Tensor) -> None:
    if z.ndim != 3 or 0 in z.shape or projected.ndim != 3 or projected.shape[:2] != z.shape[:2]:
        raise ValueError(
            f"views are {tuple(z.shape)}, projections {tuple(projected.shape)}; (B, N, D) and (B, N, P) are needed"
        )
    if text.shape != (len(z), z.shape[2]) or projected_text.shape != (len(z), projected.shape[2]):
        raise ValueError(
            f"prompts are {tuple(text.shape)}, their projections {tuple(projected_text.shape)}; "
            f"({len(z)}, {z.shape[2]}) and ({len(z)}, {projected.shape[2]}) are needed"
        )
    if rows.shape != z.shape[:1] or rows.is_floating_point():
        raise ValueError(f"pseudo-labels are {tuple(rows.shape)} {rows.dtype}; ({len(z)},) integers are needed")
    _check_batch(len(z))
