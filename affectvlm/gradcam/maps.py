"""Maps of the views: where the model found what speaks for a target.

All methods read what flows through one layer, A (M, C, h, w) for the M views of a face, and the gradient G of the
target's score with respect to it. The views go through together and the score is that of their joint feature, so maps
of different views are on one scale. Nothing is hooked and no parameter gets a gradient (see `model.towers`): threads
can share the model.

    gradcam      relu sum_c mean_hw(G)_c A_c                                   Selvaraju et al., ICCV 2017
    gradcam++    the same with second-order weights per place                  Chattopadhay et al., WACV 2018
    layercam     relu sum_c relu(G)_c A_c                                      Jiang et al., TIP 2021
    hirescam     relu sum_c G_c A_c                                            Draelos & Carin, 2020
    integrated   relu sum_c Gbar_c (A - A0)_c, with Gbar the mean gradient on the straight path to A from A0, the layer
                 for the same views smoothed until they show no expression. Summed over all places and views and before
                 the relu it is the score minus that of the smoothed views   after Sundararajan et al., ICML 2017
    attention    relu of attention times its gradient, mean over heads, of the token that is read; for transformers
                 the last blocks multiplied together                           Chefer et al., ICCV 2021
    occlusion    how far the score falls when a window is smoothed; needs no gradient and works with any tower

The first four equal the package grad-cam (tests compare them on the same layers).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from affectvlm.gradcam.targets import Target
from affectvlm.model import MultiviewCLIP, towers

LAYERED = ("integrated", "hirescam", "layercam", "gradcam", "gradcam++")
METHODS = (*LAYERED, "attention", "occlusion")
DEFAULT_METHOD = "integrated"

STEPS = 4  # of the path of "integrated", at midpoints; twice as many change nothing that deletion would notice
ATTENTION_BLOCKS = 4  # the last blocks of a transformer that "attention" multiplies; more brings noise
FINE = 14  # places a side that a face needs for its parts to be told apart
WINDOWS = 10  # occluding windows a side; each is twice as wide as their distance
SMOOTHING = 0.04  # sigma of the smoothing that takes the expression away, of the picture's side: 6 mm of a face


@dataclass(frozen=True, eq=False)
class ViewMaps:
    """Maps of the views of one face for one target.

    Attributes:
        maps: (N, H, W) float32 in [0, 1]; 1 is the strongest place of all views, so views compare. 0 where a view is
            missing, and everywhere if nothing speaks for the target.
        shares: (N,) float64, what part of all that speaks for the target lies in each view; sums to 1, or all 0.
        score: of the target, for these views.
        target, method, layer: what was asked; layer "" where the method has none.
    """

    maps: np.ndarray
    shares: np.ndarray
    score: float
    target: str
    method: str
    layer: str


def methods_for(model: MultiviewCLIP) -> tuple[str, ...]:
    """Those of METHODS that work with the model's image tower; the best one first."""
    known = [*(LAYERED if towers.layer_names(model) else ()), *(["attention"] if towers.has_attention(model) else [])]
    return (*known, "occlusion")


def default_layer(model: MultiviewCLIP) -> str:
    """The latest layer that still tells parts of a face apart; on our model it measured best.

    Raises:
        ValueError: the image tower has no layers that are known.
    """
    names = towers.layer_names(model)
    if not names:
        raise ValueError("the image tower is not known here, so it has no layers to look at; use method 'occlusion'")
    fine = [name for name in names if (towers.places(model, name) or FINE) >= FINE]
    return fine[-1] if fine else names[0]


def explain(
    model: MultiviewCLIP,
    views: np.ndarray,
    target: Target,
    present: np.ndarray | None = None,
    method: str | None = None,
    layer: str | None = None,
) -> ViewMaps:
    """Maps of one face's views for a target.

    Args:
        model: in evaluation mode.
        views: (N, H, W, 3) uint8 RGB, square, as the model sees them (`Prediction.inputs`).
        target: what to explain.
        present: (N,) bool, which views there are; None = all.
        method: of `methods_for(model)`; None = its first.
        layer: of `towers.layer_names(model)`; None = `default_layer`. Of no effect on attention and occlusion.

    Raises:
        ValueError: an unknown method or layer, or views of another shape or dtype.
    """
    method = method or methods_for(model)[0]
    if method not in methods_for(model):
        raise ValueError(f"method is {method!r}; with this model one of {', '.join(methods_for(model))} is possible")
    pixels = prepared(model, views)
    there = presence(views, present)
    layer = (layer or default_layer(model)) if method in LAYERED else ""
    with torch.inference_mode(False), torch.enable_grad():
        if method == "attention":
            raw, score = attention_map(model, pixels, target, there)
        elif method == "occlusion":
            raw, score = occlusion_map(model, pixels, target, there)
        else:
            raw, score = layer_map(model, pixels, target, there, method, layer)
    raw = raw.clamp(min=0) * there.to(raw.device)[:, None, None]
    fine = F.interpolate(raw[:, None], size=views.shape[1:3], mode="bilinear", align_corners=False)[:, 0]
    maps = fine.double().cpu().numpy()
    total, top = maps.sum(), maps.max()
    shares = maps.sum(axis=(1, 2)) / total if total > 0 else np.zeros(len(maps))
    maps = (maps / top if top > 0 else maps).astype(np.float32)
    return ViewMaps(maps, shares, score, target.name, method, layer)


def layer_map(
    model: MultiviewCLIP, pixels: Tensor, target: Target, present: Tensor, method: str, layer: str
) -> tuple[Tensor, float]:
    """(N, h, w) map on the layer's own grid, before any cut or scale, and the score; method one of LAYERED."""
    halves = towers.split(model, layer)
    with torch.no_grad():
        flow = halves.lower(pixels)
    score, gradient = _gradient(model, halves, flow, target, present)
    value, slope = halves.grid(flow), halves.grid(gradient)
    if method == "integrated":
        with torch.no_grad():
            base = halves.lower(smoothed(pixels))
        steps = [(i + 0.5) / STEPS for i in range(STEPS)]
        total = sum(_gradient(model, halves, base + t * (flow - base), target, present)[1] for t in steps)
        value, slope = halves.grid(flow - base), halves.grid(total / STEPS)
    return COMBINATIONS[method](value, slope), score


def _gradcam(value: Tensor, slope: Tensor) -> Tensor:
    return (slope.mean(dim=(2, 3), keepdim=True) * value).sum(dim=1)


def _gradcam_plus_plus(value: Tensor, slope: Tensor) -> Tensor:
    curvature = 2 * slope**2 + value.sum(dim=(2, 3), keepdim=True) * slope**3 + 1e-6
    weights = torch.where(slope != 0, slope**2 / curvature, 0.0) * slope.clamp(min=0)
    return (weights.sum(dim=(2, 3), keepdim=True) * value).sum(dim=1)


COMBINATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "gradcam": _gradcam,
    "gradcam++": _gradcam_plus_plus,
    "layercam": lambda value, slope: (slope.clamp(min=0) * value).sum(dim=1),
    "hirescam": lambda value, slope: (slope * value).sum(dim=1),
    "integrated": lambda value, slope: (slope * value).sum(dim=1),
}


def attention_map(model: MultiviewCLIP, pixels: Tensor, target: Target, present: Tensor) -> tuple[Tensor, float]:
    """(N, h, w): relevance of each place to the token that is read; and the score."""
    features, attentions, shape = towers.attentive_features(model, pixels)
    score = _joint_score(model, features, target, present)
    gradients = torch.autograd.grad(score, attentions)
    relevance = torch.eye(attentions[0].shape[-1], device=features.device).expand(len(pixels), -1, -1)
    single = len(attentions) == 1
    for attention, gradient in list(zip(attentions, gradients, strict=True))[-ATTENTION_BLOCKS:]:
        step = (attention * gradient).clamp(min=0).mean(dim=1).detach()  # (N, T, T)
        relevance = step if single else relevance + step @ relevance
    return relevance[:, 0, 1:].unflatten(1, shape), float(score.detach())


def occlusion_map(model: MultiviewCLIP, pixels: Tensor, target: Target, present: Tensor) -> tuple[Tensor, float]:
    """(N, WINDOWS, WINDOWS): how far the score falls when the place is smoothed; and the score."""
    side, smooth = pixels.shape[-1], smoothed(pixels)
    windows = _windows(side).to(pixels)  # (WINDOWS^2, 1, S, S)
    falls = torch.zeros(len(pixels), len(windows), device=pixels.device)
    with torch.no_grad():
        features = model.encode_views(pixels[None])  # (1, N, D)
        score = _joint_score(model, features[0], target, present)
        for n in torch.nonzero(present)[:, 0].tolist():
            hidden = pixels[n] + windows * (smooth[n] - pixels[n])
            changed = features.repeat(len(windows), 1, 1)
            changed[:, n] = torch.cat([model.encode_views(part[None])[0] for part in hidden.split(25)])
            mask = present.to(pixels.device).expand(len(windows), -1)
            falls[n] = score - target.score(model, model.aggregate(changed, mask))
    return falls.unflatten(1, (WINDOWS, WINDOWS)), float(score)


def _windows(side: int) -> Tensor:
    """(WINDOWS^2, 1, S, S) float32: soft windows about the centres of a grid of places."""
    places = (torch.arange(side) + 0.5) / side
    centres = (torch.arange(WINDOWS) + 0.5) / WINDOWS
    line = torch.exp(-0.5 * ((places - centres[:, None]) * WINDOWS) ** 2)  # (WINDOWS, S)
    return (line[:, None, :, None] * line[None, :, None, :]).reshape(-1, 1, side, side)


def _gradient(
    model: MultiviewCLIP, halves: towers.Split, flow: Tensor, target: Target, present: Tensor
) -> tuple[float, Tensor]:
    flow = flow.detach().requires_grad_()
    score = _joint_score(model, halves.upper(flow), target, present)
    (gradient,) = torch.autograd.grad(score, flow)
    return float(score.detach()), gradient


def _joint_score(model: MultiviewCLIP, features: Tensor, target: Target, present: Tensor) -> Tensor:
    """(N, D) features of the views of one face → the target's score, a scalar."""
    z = model.aggregate(features[None], present[None].to(features.device))
    return target.score(model, z)[0]


def prepared(model: MultiviewCLIP, views: np.ndarray) -> Tensor:
    """(N, H, W, 3) uint8 → (N, 3, S, S) float32 in [0, 1] at the model's own size, on its device.

    Raises:
        ValueError: another shape or dtype.
    """
    views = np.asarray(views)
    if views.ndim != 4 or views.shape[3] != 3 or views.shape[1] != views.shape[2] or views.dtype != np.uint8:
        raise ValueError(f"views are {views.shape} {views.dtype}; (N, S, S, 3) uint8 is needed")
    device = model.clip.logit_scale.device
    pixels = torch.from_numpy(np.ascontiguousarray(views.transpose(0, 3, 1, 2))).to(device).float() / 255.0
    if pixels.shape[-1] != model.image_size:
        size = (model.image_size, model.image_size)
        pixels = F.interpolate(pixels, size=size, mode="bilinear", antialias=True, align_corners=False)
    return pixels


def presence(views: np.ndarray, present: np.ndarray | None) -> Tensor:
    """(N,) bool tensor.

    Raises:
        ValueError: another shape, or no view at all.
    """
    there = np.ones(len(views), bool) if present is None else np.asarray(present, bool)
    if there.shape != (len(views),) or not there.any():
        raise ValueError(f"present is {there}; {len(views)} truth values with one True at least are needed")
    return torch.from_numpy(there.copy())


def smoothed(pixels: Tensor) -> Tensor:
    """The pictures (N, 3, S, S) without expression: blurred with a Gaussian of SMOOTHING of their side."""
    sigma = SMOOTHING * pixels.shape[-1]
    radius = int(3 * sigma + 0.5)
    x = torch.arange(-radius, radius + 1, device=pixels.device, dtype=pixels.dtype)
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1)
    flat = F.pad(pixels.flatten(0, 1)[:, None], (radius,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(flat, kernel), kernel.transpose(2, 3))[:, 0].unflatten(0, pixels.shape[:2])
