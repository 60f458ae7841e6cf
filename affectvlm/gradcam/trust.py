"""How far a map can be trusted: what the model says when the bright places are taken away, or are all there is.

Deletion smooths the strongest places of a map away, a growing share of all pixels; insertion starts from smoothed views
and brings the strongest places back (Petsiuk et al., BMVC 2018). A map that points at what counts lets the score fall
soon in the one and rise soon in the other:

    gain = mean score of insertion - mean score of deletion, over FRACTIONS of the pixels

A number like that means little by itself, as any blob on a face does something. So the same is done with random maps
of the same softness that lie on the face too, and the gain is told in their terms. `weights_matter` is the sanity check
of Adebayo et al., NeurIPS 2018: with shuffled weights the map has to become another one.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from affectvlm.gradcam.maps import explain, prepared, presence, smoothed
from affectvlm.gradcam.targets import Target
from affectvlm.model import MultiviewCLIP

FRACTIONS = (0.03, 0.06, 0.12, 0.24, 0.48)
RANDOM_MAPS = 6
CLEAR, SOME = 2.0, 1.0  # standard deviations above random maps
_CELLS = 7  # random maps have this many cells a side, as many as the layer that maps are made of by default
_FACE = (0.36, 0.44)  # half-axes of the ellipse that a face fills in a view, of its side; scans and photos alike


@dataclass(frozen=True)
class Trust:
    """What deletion and insertion say of a map.

    Attributes:
        word: "points at what counts", "better than chance" or "no better than chance".
        gain: mean score of insertion minus that of deletion, in logits.
        random_gain, random_spread: mean and standard deviation of the same for random maps.
        sigmas: how many such deviations the gain lies above the mean.
        deletion, insertion: mean scores; start, end: scores of the whole views and of the smoothed ones.
        deletion_curve, insertion_curve: scores at FRACTIONS of the pixels.
        random_deletion_curve, random_insertion_curve: the same for random maps, their mean.
    """

    word: str
    gain: float
    random_gain: float
    random_spread: float
    sigmas: float
    deletion: float
    insertion: float
    start: float
    end: float
    deletion_curve: tuple[float, ...]
    insertion_curve: tuple[float, ...]
    random_deletion_curve: tuple[float, ...]
    random_insertion_curve: tuple[float, ...]


def trust(
    model: MultiviewCLIP,
    views: np.ndarray,
    target: Target,
    maps: np.ndarray,
    present: np.ndarray | None = None,
    random_maps: int = RANDOM_MAPS,
) -> Trust:
    """Deletion and insertion of the maps of one face's views against random maps.

    Takes 2 + 2 len(FRACTIONS) (1 + random_maps) looks at the face.

    Args:
        views: (N, S, S, 3) uint8, present: (N,) bool or None: as given to `explain`.
        maps: (N, H, W) float, as `explain` returned them for the same target.
        random_maps: how many to compare with, at least 2; their places are the same at every call.

    Raises:
        ValueError: maps that do not fit the views, or too few random maps.
    """
    if np.shape(maps)[:1] != np.shape(views)[:1] or np.ndim(maps) != 3 or random_maps < 2:
        raise ValueError(
            f"maps are {np.shape(maps)} for views {np.shape(views)}, with {random_maps} random maps; one map a view "
            "and at least 2 random maps are needed"
        )
    pixels, there = prepared(model, views), presence(views, present)
    curves = Curves(model, pixels, there, target)
    own = curves.of(_resized(np.asarray(maps, np.float32), pixels.shape[-1]))
    chance = [curves.of(one) for one in random_fields(random_maps, len(pixels), pixels.shape[-1])]
    gains = [insertion.mean() - deletion.mean() for deletion, insertion in (own, *chance)]
    mean, spread = float(np.mean(gains[1:])), float(np.std(gains[1:], ddof=1))
    sigmas = (float(gains[0]) - mean) / max(spread, 1e-6)
    deletion, insertion = own
    return Trust(
        word=trust_word(sigmas if np.any(maps) else 0.0),
        gain=float(gains[0]),
        random_gain=mean,
        random_spread=spread,
        sigmas=sigmas,
        deletion=float(deletion.mean()),
        insertion=float(insertion.mean()),
        start=curves.start,
        end=curves.end,
        deletion_curve=tuple(map(float, deletion)),
        insertion_curve=tuple(map(float, insertion)),
        random_deletion_curve=tuple(map(float, np.mean([one for one, _ in chance], axis=0))),
        random_insertion_curve=tuple(map(float, np.mean([one for _, one in chance], axis=0))),
    )


def trust_word(sigmas: float) -> str:
    if sigmas >= CLEAR:
        return "points at what counts"
    return "better than chance" if sigmas >= SOME else "no better than chance"


class Curves:
    """Deletion and insertion curves of one face for one target; `start` and `end` are the scores of the whole and of
    the smoothed views."""

    def __init__(self, model: MultiviewCLIP, pixels: Tensor, present: Tensor, target: Target) -> None:
        self._model, self._target = model, target
        self._pixels, self._smooth, self._present = pixels, smoothed(pixels), present
        nothing = torch.zeros(1, len(pixels), *pixels.shape[2:], device=pixels.device)
        self.start, self.end = map(float, self.scores(torch.cat([nothing, nothing + 1])))

    def of(self, maps: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """(N, S, S) → scores (len(FRACTIONS),) of deletion and of insertion."""
        ranks = _ranks(maps, self._present).to(self._pixels.device)
        count = int(self._present.sum()) * maps[0].numel()
        top = torch.stack([ranks < fraction * count for fraction in FRACTIONS]).float()
        scores = self.scores(torch.cat([top, 1 - top]))
        return scores[: len(FRACTIONS)], scores[len(FRACTIONS) :]

    def scores(self, hidden: Tensor) -> np.ndarray:
        """(B, N, S, S) in [0, 1], 1 where smoothed → (B,) float64 scores."""
        with torch.no_grad():
            scores = []
            for part in hidden.split(4):  # small parts stay in the processor's cache
                views = self._pixels + part[:, :, None] * (self._smooth - self._pixels)
                mask = self._present.to(views.device).expand(len(part), -1)
                z = self._model.aggregate(self._model.encode_views(views), mask)
                scores.append(self._target.score(self._model, z))
        return torch.cat(scores).double().cpu().numpy()


def _ranks(maps: Tensor, present: Tensor) -> Tensor:
    """(N, S, S) int64: 0 for the strongest pixel of all views; equal pixels in a fixed random order, missing views
    last."""
    flat = maps.double().cpu().clone()
    flat[~present] = -1.0
    flat = flat.flatten()
    shuffle = torch.randperm(len(flat), generator=torch.Generator().manual_seed(0))
    order = shuffle[torch.argsort(flat[shuffle], descending=True, stable=True)]
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(len(order))
    return ranks.view_as(maps)


def random_fields(count: int, views: int, side: int) -> list[Tensor]:
    """Maps that know nothing: soft random blobs on the face, (views, side, side) float32 each; always the same."""
    generator = torch.Generator().manual_seed(0)
    places = (torch.arange(side) + 0.5) / side - 0.5
    face = ((places[None, :] / _FACE[0]) ** 2 + (places[:, None] / _FACE[1]) ** 2 <= 1).float()
    fields = torch.rand(count, views, _CELLS, _CELLS, generator=generator)
    fields = F.interpolate(fields, size=(side, side), mode="bilinear", align_corners=False)
    return list(fields * face)


def weights_matter(
    model: MultiviewCLIP,
    views: np.ndarray,
    target: Target,
    present: np.ndarray | None = None,
    method: str | None = None,
    layer: str | None = None,
    seed: int = 0,
) -> float:
    """How like the map is to that of the same network with its image tower's weights shuffled, -1 to 1.

    Spearman's rank correlation over all pixels of the views that are there, 0 where a map is constant; near 0 or below:
    the map shows what the model learned; near 1: it would look so with any weights, and shows the picture alone.
    Arguments as for `explain`. The model itself is left alone.
    """
    there = presence(views, present).numpy()
    maps = [
        explain(one, views, target, present, method, layer).maps[there].ravel()
        for one in (model, shuffled(model, seed))
    ]
    if any(np.ptp(one) == 0 for one in maps):
        return 0.0
    from scipy.stats import spearmanr

    return float(spearmanr(*maps).statistic)


def shuffled(model: MultiviewCLIP, seed: int = 0) -> MultiviewCLIP:
    """A copy whose image tower has each weight tensor's values in random order: as large, but nothing learned."""
    twin = copy.copy(model)
    twin._modules = dict(model._modules)
    twin.clip = copy.copy(model.clip)
    twin.clip._modules = dict(model.clip._modules)
    twin.clip.visual = copy.deepcopy(model.clip.visual)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in twin.clip.visual.parameters():
            order = torch.randperm(weight.numel(), generator=generator).to(weight.device)
            weight.copy_(weight.flatten()[order].view_as(weight))
    return twin


def _resized(maps: np.ndarray, side: int) -> Tensor:
    maps = torch.from_numpy(np.ascontiguousarray(maps))[:, None]
    return F.interpolate(maps, size=(side, side), mode="bilinear", antialias=True, align_corners=False)[:, 0]


def deletion_insertion(
    model: MultiviewCLIP, views: np.ndarray, target: Target, maps: np.ndarray
) -> tuple[float, float]:
    """What is left of the target with a map's strongest places smoothed, and what is there with them alone.

    Means over FRACTIONS of the target's share (`Target.readable`), to compare methods by; arguments as for `trust`.
    """
    pixels = prepared(model, views)
    curves = Curves(model, pixels, presence(views, None), target)
    both = curves.of(_resized(np.asarray(maps, np.float32), pixels.shape[-1]))
    deletion, insertion = (float(np.mean([target.readable(model, one) for one in curve])) for curve in both)
    return deletion, insertion
