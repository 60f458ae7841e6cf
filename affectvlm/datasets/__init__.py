"""Faces of one's own to train and evaluate on: files → records → splits by subject → stored views.

    index = index_folder("my_scans")                       # class/subject/files, or a labels.csv
    print(index.summary())                                 # what was found, and what was left out and why
    parts = split_subjects(index, seed=0)                  # {"train": ..., "validation": ..., "test": ...}
    rendered = {name: render_index(part, "cache") for name, part in parts.items()}
    faces = RenderedFaces([rendered["train"].folder])      # of affectvlm.data

`records` is what every data set has in common: an indexer for another one makes an `Index` of `Record`s, and the rest
works as it is.
"""

from affectvlm.datasets.folder import index_folder
from affectvlm.datasets.records import Index, Record
from affectvlm.datasets.rendered import RenderedIndex, render_index
from affectvlm.datasets.splits import check_disjoint, split_subjects

__all__ = ["Index", "Record", "RenderedIndex", "check_disjoint", "index_folder", "render_index", "split_subjects"]
