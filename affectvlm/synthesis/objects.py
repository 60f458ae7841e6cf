"""Things that are not a face, as scans: what a classifier of faces must learn to be unsure about."""

from __future__ import annotations

import numpy as np

from affectvlm.scan import Scan


def random_object(rng: np.random.Generator) -> Scan:
    """A blob, ring, box, rod heap, bumpy sheet or head-sized egg, 60 to 110 mm in radius, in front of the viewer."""
    make = (_blob, _blob, _ring, _boxes, _rods, _sheet, _egg)[rng.integers(7)]
    vertices, faces = make(rng)
    vertices = vertices - vertices.mean(axis=0)
    vertices *= rng.uniform(60, 110) / np.abs(vertices).max()
    if make is not _egg:
        vertices = vertices @ _random_rotation(rng).T
    vertices[:, 2] -= vertices[:, 2].max() * rng.uniform(0.7, 1.1)
    tint = rng.uniform(30, 240, 3)
    shade = 1 + 0.25 * np.sin(vertices @ rng.normal(0, 0.08, 3) + rng.uniform(0, 6))
    colors = np.clip(tint * shade[:, None], 0, 255).astype(np.uint8)
    return Scan(vertices, faces, colors=colors, source="object")


def _random_rotation(rng: np.random.Generator) -> np.ndarray:
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    return q * np.sign(np.diag(r))


def _grid(rows: int, columns: int, wrap_rows: bool, wrap_columns: bool) -> np.ndarray:
    """(F, 3) triangles of a grid of vertices numbered row by row, closed where asked."""
    r, c = np.meshgrid(np.arange(rows - (not wrap_rows)), np.arange(columns - (not wrap_columns)), indexing="ij")
    at = lambda i, j: (i % rows) * columns + (j % columns)  # noqa: E731
    a, b, d, e = at(r, c), at(r, c + 1), at(r + 1, c), at(r + 1, c + 1)
    return np.concatenate([np.stack(t, -1).reshape(-1, 3) for t in ((a, b, e), (a, e, d))])


def _sphere(rows: int = 60, columns: int = 90) -> tuple[np.ndarray, np.ndarray]:
    polar, around = np.meshgrid(
        np.linspace(0.02, np.pi - 0.02, rows), np.linspace(0, 2 * np.pi, columns, False), indexing="ij"
    )
    points = np.stack([np.sin(polar) * np.cos(around), np.cos(polar), np.sin(polar) * np.sin(around)], -1)
    return points.reshape(-1, 3), _grid(rows, columns, False, True)


def _waves(points: np.ndarray, rng: np.random.Generator, count: int, frequency: float) -> np.ndarray:
    directions = rng.normal(0, frequency, (count, 3))
    return (np.sin(points @ directions.T + rng.uniform(0, 6.28, count)) * rng.uniform(0.2, 1, count)).mean(axis=1)


def _blob(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    points, faces = _sphere()
    bumps = rng.uniform(0.1, 0.9) * _waves(points, rng, 8, 2.2) + rng.uniform(0, 0.3) * _waves(points, rng, 8, 7.0)
    return points * (1 + bumps)[:, None] * rng.uniform(0.6, 1.3, 3), faces


def _egg(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Head-shaped but featureless, or with bumps in wrong places: the hardest of them."""
    points, faces = _sphere()
    bumps = rng.uniform(0, 0.12) * _waves(points, rng, 10, 5.0)
    return points * (1 + bumps)[:, None] * [0.75, 1.0, 0.85], faces


def _ring(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    u, v = np.meshgrid(np.linspace(0, 2 * np.pi, 80, False), np.linspace(0, 2 * np.pi, 40, False), indexing="ij")
    tube = rng.uniform(0.15, 0.5)
    ring = 1 + tube * np.cos(v)
    points = np.stack([ring * np.cos(u), ring * np.sin(u), tube * np.sin(v)], -1).reshape(-1, 3)
    return points * rng.uniform(0.6, 1.2, 3), _grid(80, 40, True, True)


def _sheet(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.meshgrid(np.linspace(-1, 1, 70), np.linspace(-1, 1, 70), indexing="ij")
    points = np.stack([x, y, np.zeros_like(x)], -1).reshape(-1, 3)
    points[:, 2] = rng.uniform(0.05, 0.6) * _waves(points, rng, 10, rng.uniform(1, 6))
    return points, _grid(70, 70, False, False)


def _boxes(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return _merge([_shaped(rng, 16, 0.35) for _ in range(rng.integers(1, 7))])


def _rods(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return _merge([_shaped(rng, 6, 1.0, slim=True) for _ in range(rng.integers(3, 9))])


def _shaped(rng: np.random.Generator, power: float, spread: float, slim: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """A superellipsoid (box for a high power, rod when slim), turned and shifted."""
    points, faces = _sphere(24, 32)
    points = points / (np.abs(points) ** power).sum(axis=1, keepdims=True) ** (1 / power)
    extent = rng.uniform(0.3, 1.0, 3) * ([0.25, 1.6, 0.25] if slim else [1, 1, 1])
    return points * extent @ _random_rotation(rng).T + rng.uniform(-spread, spread, 3), faces


def _merge(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    starts = np.cumsum([0] + [len(points) for points, _ in parts[:-1]])
    faces = np.concatenate([faces + start for (_, faces), start in zip(parts, starts, strict=True)])
    return np.concatenate([points for points, _ in parts]), faces
