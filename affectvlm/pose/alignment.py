"""From correspondences to a similarity transform, and its refinement against the face template.

`solve` turns the network's predicted coordinates into a transform; `refine` fits the template, modes included, to the
surface by trimmed iterative closest points with the symmetric point-to-plane error (Rusinkiewicz, SIGGRAPH 2019). Going
from the template to the scan, not back, makes hair, shoulders and furniture harmless, and missing parts are simply
not matched.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from affectvlm.pose.network import Correspondences
from affectvlm.pose.template import Template

MATCH_DISTANCE = 5.0  # mm; a template point nearer to the scan than this counts as found
MATCH_COSINE = 0.6
STEPS = 18
MODES_FROM_STEP = 5
MODE_NOISE = 0.15
"""Weight of the modes' prior against one template point: neighbouring points err together, so it is far above 1 / P."""
PIVOT = np.array([0.0, 0.0, -40.0])


class Similarity(NamedTuple):
    """canonical = scale * rotation @ p + translation; rotation (3, 3), translation (3,) mm, float64."""

    rotation: np.ndarray
    translation: np.ndarray
    scale: float

    def apply(self, points: np.ndarray) -> np.ndarray:
        return self.scale * points @ self.rotation.T + self.translation

    def invert(self, points: np.ndarray) -> np.ndarray:
        return (points - self.translation) @ self.rotation / self.scale


class Fit(NamedTuple):
    """transform: refined; coverage: share of the template found on the scan, 0 to 1; residual: mm, mean distance where
    found; strange: how unusual the fitted face is, mean square of its mode coefficients; overlap: share of the scan's
    points in the face region that lie on the fitted template; shape: (K,) those coefficients."""

    transform: Similarity
    coverage: float
    residual: float
    strange: float
    overlap: float
    shape: np.ndarray


def umeyama(points: np.ndarray, target: np.ndarray, weight: np.ndarray, scale: float | None = None) -> Similarity:
    """Weighted least-squares similarity from points (K, 3) to target (K, 3) (Umeyama, PAMI 1991); `scale` fixes it."""
    weight = weight / weight.sum()
    from_mean, to_mean = weight @ points, weight @ target
    a, b = points - from_mean, target - to_mean
    u, d, vt = np.linalg.svd((b * weight[:, None]).T @ a)
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * sign) @ vt
    if scale is None:
        scale = max(float((d * sign).sum() / max((weight @ (a**2)).sum(), 1e-30)), 1e-12)
    return Similarity(rotation, to_mean - scale * rotation @ from_mean, float(scale))


def solve(found: Correspondences, scale: float | None = None) -> tuple[Similarity, float]:
    """The transform that agrees with the network's coordinates, and the mean disagreement on the face in mm.

    Heights and depths (y, z) alone give two axes by linear regression; the third is their cross product, so a wrong
    guess of left and right cannot mirror the face. Then all three coordinates are fitted, with |x| given the side
    this axis says.
    """
    weight = np.clip(found.face, 0.02, 1) / np.clip(found.error, 2.0, None) ** 2
    coords = found.coords.copy()
    center = weight @ found.points / weight.sum()
    offset = found.points - center
    spread = max(np.sqrt(float(weight @ (offset**2).sum(axis=1) / weight.sum())), 1e-12)
    design = np.column_stack([offset / spread, np.ones(len(offset))])
    transform = None
    for _ in range(8):
        if transform is None:
            gram = design.T @ (design * weight[:, None]) + np.diag([1e-3, 1e-3, 1e-3, 0]) * weight.sum()
            rows = np.linalg.solve(gram, design.T @ (coords[:, 1:] * weight[:, None]))[:3].T  # y and z as gradients
            x_axis = np.cross(rows[0], rows[1])
            x_axis /= max(np.linalg.norm(x_axis), 1e-12)
            lateral = offset @ x_axis / spread * np.sqrt(np.linalg.norm(rows[0]) * np.linalg.norm(rows[1]))
            lateral = lateral - _middle(lateral, found.side, weight)
        else:
            lateral = transform.apply(found.points)[:, 0]
        coords[:, 0] = np.sign(lateral) * np.maximum(found.side, 0)
        miss = None if transform is None else np.linalg.norm(transform.apply(found.points) - coords, axis=1)
        robust = weight if miss is None else weight / (1 + (miss / np.clip(2 * found.error, 6, None)) ** 2)
        transform = umeyama(found.points, coords, robust, scale)
    return transform, float((found.face * miss).sum() / max(found.face.sum(), 1e-9))


def _middle(lateral: np.ndarray, side: np.ndarray, weight: np.ndarray) -> float:
    """The shift for which |lateral - shift| agrees best with the predicted distance to the middle plane."""
    shifts = np.linspace(lateral.min(), lateral.max(), 61)
    cost = np.abs(np.abs(lateral[None] - shifts[:, None]) - side) @ weight
    return float(shifts[np.argmin(cost)])


def refine(
    start: Similarity,
    surface: np.ndarray,
    normals: np.ndarray,
    template: Template,
    free_scale: bool,
    shape: np.ndarray | None = None,
    first: int = 0,
    settled: float = 0.0,
) -> Fit:
    """Fit the template to surface points (M, 3) with outward normals (M, 3), from a transform within about 30°.

    With `free_scale` the size is fitted too (held near the start's), else it stays as it is. A start that is near the
    end already may bring a `shape` (K,), skip the `first` steps, which reach far, and stop early: once a step changes
    no distance by more than `settled` mm.
    """
    transform, shape = start, np.zeros(len(template.modes)) if shape is None else shape
    tree = cKDTree(surface)
    for step in range(first, STEPS):
        reach = max(25.0 * 0.82**step, 1.6 * MATCH_DISTANCE)
        with_modes = step >= MODES_FROM_STEP
        model = template.points + np.tensordot(shape, template.modes, 1)
        gap, at, cosine = _match(transform, model, tree, normals, template)
        use = (np.abs(gap) < reach).all(axis=1) & (np.linalg.norm(gap, axis=1) < reach) & (cosine > MATCH_COSINE)
        if use.sum() < 30:
            break
        sides = template.normals[use] + normals[at[use]] @ transform.rotation.T
        error = np.einsum("ni,ni->n", gap[use], sides)
        scatter = max(1.4826 * np.median(np.abs(error)), 1.0)
        weight = template.weight[use] / (1 + (error / (2 * scatter)) ** 2)
        update, shape_step, change = _step(
            model[use], sides, error, weight, template.modes[:, use], shape, with_modes, free_scale
        )
        transform = _compose(update, transform)
        shape = np.clip(shape + shape_step, -3, 3)
        if change < settled:
            break
    return _grade(transform, shape, tree, surface, normals, template)


def _match(transform: Similarity, model: np.ndarray, tree: cKDTree, normals: np.ndarray, template: Template):
    """For each model point: vector to the nearest scan point (P, 3) canonical mm, its index, cosine of the normals."""
    _, at = tree.query(transform.invert(model))
    gap = transform.apply(tree.data[at]) - model
    cosine = np.einsum("ni,ni->n", normals[at] @ transform.rotation.T, template.normals)
    return gap, at, cosine


def _step(model, sides, error, weight, modes, shape, with_modes, free_scale):
    """One Gauss-Newton step: the small similarity that moves the scan onto the model, the change of the modes, and by
    how many mm both together change the distance of a point at most."""
    columns = [np.cross(model, sides), sides]
    if free_scale:
        columns.append(np.einsum("ni,ni->n", model - PIVOT, sides)[:, None])
    if with_modes:
        columns.append(-np.einsum("kni,ni->nk", modes, sides))
    design = np.concatenate(columns, axis=1)
    gram = design.T @ (design * weight[:, None])
    right = -design.T @ (weight * error)
    gram[np.arange(6), np.arange(6)] += 1e-6 * np.trace(gram)
    if with_modes:
        first, noise = 6 + free_scale, MODE_NOISE * weight.sum()
        gram[np.arange(first, len(gram)), np.arange(first, len(gram))] += noise
        right[first:] -= noise * shape
    solution = np.linalg.solve(gram, right)
    scale = float(np.clip(solution[6], -0.05, 0.05)) if free_scale else 0.0
    shape_step = solution[6 + free_scale :] if with_modes else np.zeros(len(shape))
    change = float(np.abs(design @ solution).max()) / 2  # `sides` are two normals added up
    return Similarity(_rotation(solution[:3]), solution[3:6] - scale * PIVOT, 1 + scale), shape_step, change


def _rotation(vector: np.ndarray) -> np.ndarray:
    """Rotation by |vector| radians about it (Rodrigues)."""
    angle = np.linalg.norm(vector)
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = vector / angle
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k


def _compose(after: Similarity, before: Similarity) -> Similarity:
    return Similarity(
        after.rotation @ before.rotation, after.apply(before.translation[None])[0], after.scale * before.scale
    )


def _grade(transform, shape, tree, surface, normals, template) -> Fit:
    model = template.points + np.tensordot(shape, template.modes, 1)
    gap, _, cosine = _match(transform, model, tree, normals, template)
    distance = np.linalg.norm(gap, axis=1)
    found = (distance < MATCH_DISTANCE) & (cosine > MATCH_COSINE)
    residual = np.abs(np.einsum("ni,ni->n", gap, template.normals))
    canonical = transform.apply(surface)
    near = (np.abs(canonical[:, 0]) < 60) & (canonical[:, 1] > -70) & (canonical[:, 1] < 80) & (canonical[:, 2] > -45)
    overlap = 0.0
    if near.any():
        overlap = float((cKDTree(model).query(canonical[near])[0] < 9.0).mean())
    return Fit(
        transform,
        float((found * template.weight).sum() / template.weight.sum()),
        float(residual[found].mean()) if found.any() else MATCH_DISTANCE,
        float((shape**2).mean()),
        overlap,
        shape,
    )
