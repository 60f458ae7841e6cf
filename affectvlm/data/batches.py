"""Batches to train on: rendered faces shuffled, bent, lit, framed and flipped anew, and words for each view."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from affectvlm.augmentation.on_device import pack
from affectvlm.augmentation.views import Draws, MixedViews, draw, join, show
from affectvlm.data.faces import RenderedFaces
from affectvlm.prompts import PromptSet


def sample_weight(emotional: np.ndarray, intensity: np.ndarray) -> np.ndarray:
    """(B,) float32 in [0.2, 1]: a slight expression, hard to tell from a resting face, counts less; full weight from an
    intensity of two thirds, and for faces that show no emotion."""
    return np.where(emotional, np.clip(0.2 + 1.2 * intensity, 0.2, 1.0), 1.0).astype(np.float32)


def shuffled(seed: int, epoch: int, count: int) -> np.ndarray:
    """(count,) int64: the order of the faces in one pass over them."""
    return np.random.default_rng([seed, 0, int(epoch)]).permutation(count)


def shuffled_rows(seed: int, step: int, batch: int, count: int) -> np.ndarray:
    """(batch,) int64: which of `count` faces batch `step` shows; each once in every pass over them."""
    places = np.arange(step * batch, (step + 1) * batch)
    orders = {epoch: shuffled(seed, epoch, count) for epoch in np.unique(places // count)}
    return np.array([orders[place // count][place % count] for place in places], np.int64)


class Batches(IterableDataset):
    """An endless shuffle of faces, cut into augmented batches; batch `step` depends on seed and step alone.

    With several loader workers, worker w makes every w-th batch; the loader takes them in turn, so the order is that
    of the steps. Of several ranks, each makes its own rows of the batch; put together they are the batch of a single
    rank, number for number, so that a run can go on with another number of ranks.

    Args:
        faces: what is shown. views: how it is augmented. batch: rows of all ranks together.
        steps: at which to end. start: the first one.
        rank, ranks: whose rows of the `batch` are made.
        on_device: leave the pixels to the GPU: the batch holds "packed" for `augmentation.on_device.unpack` instead of
            "views".

    Raises:
        ValueError: a batch that the ranks cannot share in chunks of CHUNK rows.
    """

    CHUNK = 4
    """Rows that share a generator: what a row becomes must not depend on how many ranks share the batch."""

    def __init__(
        self, faces: Any, views: MixedViews, batch: int, steps: int, seed: int, start: int, rank: int, ranks: int,
        on_device: bool,
    ) -> None:  # fmt: skip
        if ranks > 1 and batch % (self.CHUNK * ranks):
            raise ValueError(f"a batch of {batch} for {ranks} ranks; a multiple of {self.CHUNK * ranks} is needed")
        self.faces, self.views, self.batch, self.steps, self.seed = faces, views, batch, steps, seed
        self.start, self.rank, self.ranks, self.on_device = start, rank, ranks, on_device

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        for step in range(self.start + number, self.steps, workers):
            yield self.make(step)

    def make(self, step: int) -> dict[str, Any]:
        """This rank's rows of batch `step`."""
        raise NotImplementedError

    def own_rows(self, step: int, count: int) -> tuple[np.ndarray, int]:
        """Which of `count` faces are this rank's rows of batch `step`, each face once in every pass over them; and the
        number, among those of the whole batch, of their first chunk."""
        share = self.batch // self.ranks
        rows = shuffled_rows(self.seed, step, self.batch, count)[self.rank * share : (self.rank + 1) * share]
        return rows, self.rank * share // self.CHUNK


class MixedBatches(Batches):
    """Batches of rendered faces, with their labels and with words for each view.

    Yields dicts: views (B, `per_sample`, 3, size, size) uint8 (or packed, which makes them on a GPU), labels (B,)
    int64, bears (B, rows) bool, units (B, U) float32, weight (B,) float32, and prompts, B tuples of `per_sample`
    strings: every view's own, drawn anew, about one of the sample's labels; words (B, `per_sample`) int64 says which.

    Args:
        per_sample: 3 views, or 2: the front and one side.
        prompts: draws each view's prompt; None yields none.
        metadata: whether prompts may say what a record knows of its subject.
        scans_first: steps at the start that show scans alone, nearly all as surface directions and none covered: with
            everything at once, random weights find nothing to begin with.
        The others as `Batches`.

    Raises:
        ValueError: as `Batches`.
    """

    def __init__(
        self,
        faces: RenderedFaces,
        views: MixedViews,
        batch: int,
        steps: int,
        seed: int,
        start: int = 0,
        per_sample: int = 3,
        prompts: PromptSet | None = None,
        metadata: bool = True,
        scans_first: int = 0,
        rank: int = 0,
        ranks: int = 1,
        on_device: bool = False,
    ) -> None:
        super().__init__(faces, views, batch, steps, seed, start, rank, ranks, on_device)
        self.per_sample, self.prompts, self.metadata = per_sample, prompts, metadata
        scans = np.flatnonzero(~faces.photo)
        self.scans_first = scans_first if len(scans) else 0
        easy = replace(views, kinds=(0.9, 0.1, 0.0), occlusion=0.0, blur=min(views.blur, 0.1))
        self._early, self._later = (scans, easy), (np.arange(len(faces)), views)

    def make(self, step: int) -> dict[str, Any]:
        pool, views = self._early if step < self.scans_first else self._later
        rows, first = self.own_rows(step, len(pool))
        chosen = pool[rows]
        chunks = [
            self._chunk(part, views, np.random.default_rng([self.seed, 1, step, first + number]))
            for number, part in enumerate(np.split(chosen, range(self.CHUNK, len(chosen), self.CHUNK)))
        ]
        labels, intensity = self.faces.labels[chosen], self.faces.intensity[chosen]
        stored = np.concatenate([stored for stored, *_ in chunks])
        draws = join([draws for _, draws, *_ in chunks])
        batch = {
            **({"packed": pack(stored, draws)} if self.on_device else {"views": torch.from_numpy(show(stored, draws))}),
            "labels": torch.from_numpy(labels),
            "bears": torch.from_numpy(self.faces.bears[chosen]),
            "units": torch.from_numpy(self.faces.units[chosen]),
            "weight": torch.from_numpy(sample_weight(self.faces.emotional[chosen], intensity)),
        }
        if self.prompts:
            batch["words"] = torch.from_numpy(np.concatenate([about for *_, about, _ in chunks]))
            batch["prompts"] = [row for *_, rows in chunks for row in rows]
        return batch

    def _chunk(
        self, rows: np.ndarray, views: MixedViews, rng: np.random.Generator
    ) -> tuple[np.ndarray, Draws, np.ndarray, list[tuple[str, ...]]]:
        stored = self._sides(self.faces.views(rows), rng)
        draws = draw(stored, self.faces.photo[rows], views, rng, picture=self.faces.picture[rows])
        about = self._about(rows, rng)
        words = [self._words(row, labels, rng) for row, labels in zip(rows, about, strict=True)] if self.prompts else []
        return stored, draws, about, words

    def _about(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(n, per_sample) int64: the label each view's prompt will be about, any of those that the sample bears."""
        about = np.repeat(self.faces.labels[rows][:, None], self.per_sample, axis=1)
        for place in np.flatnonzero(self.faces.bears[rows].sum(axis=1) > 1):
            about[place] = rng.choice(np.flatnonzero(self.faces.bears[rows[place]]), self.per_sample)
        return about

    def _words(self, row: int, about: np.ndarray, rng: np.random.Generator) -> tuple[str, ...]:
        """Every view's own prompt."""
        known = self.faces.metadata[row] if self.metadata else None
        return tuple(self.prompts.draw(self.faces.rows[label], known, rng) for label in about)

    def _sides(self, stored: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """All three views, or the front and one side of each sample."""
        if self.per_sample == 3:
            return stored
        sides = rng.integers(1, 3, len(stored))
        return np.stack([stored[:, 0], stored[np.arange(len(stored)), sides]], axis=1)
