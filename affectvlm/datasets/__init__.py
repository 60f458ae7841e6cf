"""Faces of one's own to train and evaluate on: files → records → splits by subject → stored views.

    index = index_folder("my_scans")                       # class/subject/files, or a labels.csv
    print(index.summary())                                 # what was found, and what was left out and why
    parts = split_subjects(index, seed=0)                  # {"train": ..., "validation": ..., "test": ...}
    rendered = {name: render_index(part, "cache") for name, part in parts.items()}
    faces = RenderedFaces([rendered["train"].folder])      # of affectvlm.data

Published data sets (BU-3DFE, BU-4DFE, Bosphorus, BP4D, BP4D+, 4DME, FaceScape, CoMA) have indexers of their own:
`index_dataset("bu3dfe", "BU_3DFE")`; `conformance` looks whether a copy is what it should be, and `fixtures` writes
small trees in their formats. `records` is what every data set has in common: an indexer for another one makes an
`Index` of `Record`s, and the rest works as it is.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from affectvlm.datasets.bosphorus import index_bosphorus
from affectvlm.datasets.bp4d import index_bp4d, index_bp4dplus
from affectvlm.datasets.bu3dfe import index_bu3dfe
from affectvlm.datasets.bu4dfe import index_bu4dfe
from affectvlm.datasets.coma import index_coma
from affectvlm.datasets.facescape import index_facescape
from affectvlm.datasets.folder import index_folder
from affectvlm.datasets.fourdme import index_fourdme
from affectvlm.datasets.records import Index, Record
from affectvlm.datasets.rendered import RenderedIndex, render_index
from affectvlm.datasets.splits import check_disjoint, read_split, split_subjects

INDEXERS: dict[str, Callable[..., Index]] = {
    "folder": index_folder,
    "bu3dfe": index_bu3dfe,
    "bu4dfe": index_bu4dfe,
    "bosphorus": index_bosphorus,
    "bp4d": index_bp4d,
    "bp4dplus": index_bp4dplus,
    "4dme": index_fourdme,
    "facescape": index_facescape,
    "coma": index_coma,
}
"""Name of a data set's layout → what reads it."""


def index_dataset(name: str, path: str | Path, **options: Any) -> Index:
    """The faces of a data set.

    Args:
        name: one of INDEXERS.
        path: of its folder. options: as its indexer takes them (`exclude`, a list of known faults, all but "folder").

    Raises:
        ValueError: an unknown name or option, or what the indexer refuses.
    """
    if name not in INDEXERS:
        raise ValueError(f"data set {name!r} is unknown; one of {', '.join(INDEXERS)} is needed")
    known = list(inspect.signature(INDEXERS[name]).parameters)[1:]
    if unknown := set(options) - set(known):
        raise ValueError(f"{name} has no option {sorted(unknown)[0]!r}; it has {', '.join(known)}")
    return INDEXERS[name](path, **options)


def parse_option(text: str) -> tuple[str, Any]:
    """ "trim=true" → ("trim", True): an option of `index_dataset` as it is given in the shell.

    Raises:
        ValueError: no name, or no "=".
    """
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise ValueError(f"{text!r} is not name=value")
    return name, {"true": True, "false": False}.get(value.lower(), value)


__all__ = [
    "INDEXERS",
    "Index",
    "Record",
    "RenderedIndex",
    "check_disjoint",
    "index_dataset",
    "index_folder",
    "parse_option",
    "read_split",
    "render_index",
    "split_subjects",
]
