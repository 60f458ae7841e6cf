"""Faces of one's own to train and evaluate on: files → records → splits by subject → stored views.

    index = index_folder("my_scans")                       # class/subject/files, or a labels.csv
    print(index.summary())                                 # what was found, and what was left out and why
    parts = split_subjects(index, seed=0)                  # {"train": ..., "validation": ..., "test": ...}
    rendered = {name: render_index(part, "cache") for name, part in parts.items()}
    faces = RenderedFaces([rendered["train"].folder])      # of affectvlm.data

`records` is what every data set has in common: an indexer for another one makes an `Index` of `Record`s, and the rest
works as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from affectvlm.datasets.folder import index_folder
from affectvlm.datasets.records import Index, Record
from affectvlm.datasets.rendered import RenderedIndex, render_index
from affectvlm.datasets.splits import check_disjoint, read_split, split_subjects

INDEXERS: dict[str, Callable[..., Index]] = {"folder": index_folder}
"""Name of a data set's layout → what reads it."""


def index_dataset(name: str, path: str | Path, **options: Any) -> Index:
    """The faces of a data set.

    Args:
        name: one of INDEXERS.
        path: of its folder. options: as its indexer takes them.

    Raises:
        ValueError: an unknown name, or what the indexer refuses.
    """
    if name not in INDEXERS:
        raise ValueError(f"data set {name!r} is unknown; one of {', '.join(INDEXERS)} is needed")
    return INDEXERS[name](path, **options)


__all__ = [
    "INDEXERS",
    "Index",
    "Record",
    "RenderedIndex",
    "check_disjoint",
    "index_dataset",
    "index_folder",
    "read_split",
    "render_index",
    "split_subjects",
]
