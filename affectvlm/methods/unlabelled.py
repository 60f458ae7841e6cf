"""Faces without labels: what training sees of a target when it must learn without them.

`Unlabelled` holds pixels, how they were taken (scan, photo-like, picture), and which of them show the same person,
where that is known. It has no labels, no intensity, no action units, no names and no metadata; `UnlabelledBatches`
makes batches of it. So code that is handed these two cannot ask for a label, whatever it does. The order of the faces
is that of a hash of their pixels, and people are numbered in that order: folders list their files class by class, and
an order or a name can tell a class as well as a label.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from affectvlm.augmentation.on_device import pack
from affectvlm.augmentation.views import Draws, MixedViews, draw, join, show
from affectvlm.data import Batches, open_shard, picture_mode

UNKNOWN_PERSON = -1


class Unlabelled:
    """Stored views of n faces, and nothing that says what they show.

    Attributes:
        photo: (n,) bool, seen as a camera sees. picture: (n,) int, see `data.RenderedFaces`.
        person: (n,) int64, the same number for faces of the same person; UNKNOWN_PERSON where nobody says who it is.
    """

    __slots__ = ("_places", "_shards", "person", "photo", "picture")

    def __init__(
        self, shards: Sequence[np.ndarray], places: Sequence[tuple[int, int]], photo: Sequence[bool],
        picture: Sequence[int], people: Sequence[Hashable | None] | None = None,
    ) -> None:  # fmt: skip
        """Faces at `places` = (shard, row) of shards (m, 3, S, S, 7) uint8; they are put into the order of their
        pixels. Of `people`, one a face, only is kept which are equal; None = not known."""
        if not len(places) or not len(places) == len(photo) == len(picture):
            raise ValueError(
                f"{len(places)} faces with {len(photo)} flags; one face at least, and a flag each are needed"
            )
        order = sorted(range(len(places)), key=lambda i: fingerprint(shards[places[i][0]][places[i][1]]))
        self._shards = list(shards)
        self._places = np.array(places, np.int64)[order]
        self.photo, self.picture = np.array(photo, bool)[order], np.array(picture, np.int64)[order]
        numbers: dict[Hashable, int] = {}
        whose = [None] * len(order) if people is None else [people[i] for i in order]
        numbered = [UNKNOWN_PERSON if who is None else numbers.setdefault(who, len(numbers)) for who in whose]
        self.person = np.array(numbered, np.int64)

    @classmethod
    def open(
        cls, folders: Sequence[str | Path], counts: Sequence[int | None] | None = None, photos: bool = True,
        people: bool = False,
    ) -> Unlabelled:  # fmt: skip
        """The faces of rendered folders (see `affectvlm.data`). Of the listings, whether a face is a photo or a picture
        is read and, where asked, which subjects are the same; nothing else.

        Args:
            counts: of each folder as many faces at most; None = all.
            photos: False leaves photo-like faces out.
            people: True takes each subject of a folder for one person.

        Raises:
            ValueError: not one face.
        """
        shards: list[np.ndarray] = []
        found: list[tuple[tuple[int, int], bool, int, Hashable | None]] = []
        for number, folder in enumerate(folders):
            own = []
            for file in sorted(Path(folder).glob("shard_*.json")):
                records = json.loads(file.read_text("utf-8"))
                who = [(number, r["subject"]) if people and "subject" in r else None for r in records]
                flags = [(bool(r["photo"]), picture_mode(r), person) for r, person in zip(records, who, strict=True)]
                shards.append(open_shard(file, records))
                own += [((len(shards) - 1, row), *flag) for row, flag in enumerate(flags)]
            limit = counts[number] if counts else None
            found += [face for face in own[:limit] if photos or not face[1]]
        places, photo, picture, persons = zip(*found, strict=True) if found else ((), (), (), ())
        return cls(shards, places, photo, picture, persons)

    def __len__(self) -> int:
        return len(self._places)

    def __deepcopy__(self, memo: dict) -> Unlabelled:
        return self  # read-only and large: running averages of a method copy all that it holds

    def views(self, indices: Sequence[int]) -> np.ndarray:
        """(m, 3, S, S, 7) uint8 stored views."""
        return np.stack([self._shards[shard][row] for shard, row in self._places[np.asarray(indices)]])

    def batches(self, size: int) -> Iterator[np.ndarray]:
        """Index arrays in order: every face once."""
        for start in range(0, len(self), size):
            yield np.arange(start, min(start + size, len(self)))


def fingerprint(views: np.ndarray) -> bytes:
    """16 bytes of one face's pixels."""
    return hashlib.blake2b(np.ascontiguousarray(views), digest_size=16).digest()


class UnlabelledBatches(Batches):
    """Batches of faces without labels.

    Yields dicts with index (B,) int64 of the faces, and views (B, `distortions` * 3, 3, size, size) uint8; or packed, a
    list of what makes them on a GPU (`augmentation.on_device`). Nothing else.

    Args:
        distortions: how often each view is drawn, each time with an augmentation of its own; all three views of the
            first drawing come first. The others as `data.Batches`.

    Raises:
        TypeError: faces that could tell a label.
        ValueError: as `data.Batches`.
    """

    def __init__(
        self,
        faces: Unlabelled,
        views: MixedViews,
        batch: int,
        steps: int,
        seed: int,
        start: int = 0,
        distortions: int = 1,
        rank: int = 0,
        ranks: int = 1,
        on_device: bool = False,
    ) -> None:
        if not isinstance(faces, Unlabelled):
            raise TypeError(f"faces are {type(faces).__name__}; Unlabelled is needed, which cannot tell a label")
        super().__init__(faces, views, batch, steps, seed, start, rank, ranks, on_device)
        self.distortions = distortions

    def make(self, step: int) -> dict[str, Any]:
        chosen, first = self.own_rows(step, len(self.faces))
        stored = self.faces.views(chosen)
        drawn = [self._draws(stored, chosen, step, first, twin) for twin in range(self.distortions)]
        index = torch.from_numpy(chosen)
        if self.on_device:
            return {"index": index, "packed": [pack(stored, draws) for draws in drawn]}
        return {"index": index, "views": torch.from_numpy(np.concatenate([show(stored, d) for d in drawn], axis=1))}

    def _draws(self, stored: np.ndarray, chosen: np.ndarray, step: int, first: int, twin: int) -> Draws:
        parts = []
        for number, start in enumerate(range(0, len(chosen), self.CHUNK)):
            rng = np.random.default_rng([self.seed, 1, step, first + number, *[twin] * (twin > 0)])
            rows = slice(start, start + self.CHUNK)
            photo, picture = self.faces.photo[chosen[rows]], self.faces.picture[chosen[rows]]
            parts.append(draw(stored[rows], photo, self.views, rng, picture=picture))
        return join(parts)
