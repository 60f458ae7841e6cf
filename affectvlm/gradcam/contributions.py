"""What each view and each part of the face gives to an answer: the same question again without it.

A view is left out by not showing it; a region is smoothed in all views, so that its shape stays and its expression goes
(the same smoothing by which maps are tested).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from affectvlm.gradcam.maps import prepared, presence, smoothed
from affectvlm.gradcam.regions import REGIONS
from affectvlm.gradcam.targets import Target
from affectvlm.model import MultiviewCLIP
from affectvlm.rendering import VIEW_NAMES

_SOFT = 7  # pixels over which the edge of a smoothed region fades


@dataclass(frozen=True)
class Level:
    """How strongly something speaks for a target: its score (logits), and that as people read it (`Target.readable`: a
    share in [0, 1], or the cosine of plain words)."""

    score: float
    value: float


@dataclass(frozen=True)
class Contributions:
    """The level of a target for the whole face and without its parts.

    Attributes:
        whole: with everything.
        without_view: view name → level; only views that are there, and none where only one is.
        without_region: region → level.
        only_view: view name → level of that view alone.
    """

    whole: Level
    without_view: dict[str, Level]
    without_region: dict[str, Level]
    only_view: dict[str, Level]


def contributions(
    model: MultiviewCLIP,
    views: np.ndarray,
    target: Target,
    regions: np.ndarray,
    present: np.ndarray | None = None,
    view_names: Sequence[str] = VIEW_NAMES,
) -> Contributions:
    """Leave-one-out of views and regions.

    Args:
        views: (N, S, S, 3) uint8, present: (N,) bool or None: as for `maps.explain`.
        regions: (N, h, w) int8 of `scan_regions` or `photo_regions`.
        view_names: N of them.

    Raises:
        ValueError: shapes that do not fit.
    """
    if len(regions) != len(views) or len(view_names) != len(views):
        raise ValueError(f"{len(regions)} region maps and {len(view_names)} names for {len(views)} views; N each")
    pixels, there = prepared(model, views), presence(views, present)
    smooth = smoothed(pixels)
    masks = [_soft_mask(regions == i, pixels) for i in range(len(REGIONS))]
    shown = torch.stack([pixels, *(pixels + mask[:, None] * (smooth - pixels) for mask in masks)])  # (1 + R, N, ...)
    with torch.no_grad():
        features = torch.cat([model.encode_views(one[None]) for one in shown])  # (1 + R, N, D)
        there = there.to(features.device)

        def level(z: Tensor, mask: Tensor) -> Level:
            score = float(target.score(model, model.aggregate(z[None], mask[None]))[0])
            return Level(score, target.readable(model, score))

        each = {name: i for i, name in enumerate(view_names) if there[i]}
        single = {name: torch.arange(len(there), device=there.device) == i for name, i in each.items()}
        return Contributions(
            whole=level(features[0], there),
            without_view={name: level(features[0], there & ~one) for name, one in single.items() if len(each) > 1},
            without_region={name: level(z, there) for name, z in zip(REGIONS, features[1:], strict=True)},
            only_view={name: level(features[0], one) for name, one in single.items()},
        )


def _soft_mask(inside: np.ndarray, pixels: Tensor) -> Tensor:
    """(N, h, w) bool → (N, S, S) float32 with soft edges."""
    mask = torch.from_numpy(inside.astype(np.float32))[:, None].to(pixels.device)
    mask = F.interpolate(mask, size=pixels.shape[-2:], mode="bilinear", antialias=True, align_corners=False)
    return F.avg_pool2d(F.pad(mask, (_SOFT // 2,) * 4, mode="replicate"), _SOFT, stride=1)[:, 0]
