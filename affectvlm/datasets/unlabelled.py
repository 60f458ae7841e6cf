"""Faces of which nobody has said what they show: any folder of scans or view triples → an `Index` without labels.

Every record bears the one label UNKNOWN, which is no class of any model: such an index can be rendered and trained on
by methods that read no label, and by no others.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from affectvlm.datasets.draft import Draft
from affectvlm.datasets.folder import _entries, _relative, _scans, _triples
from affectvlm.datasets.records import Index, Record

UNKNOWN = "unknown"
LAYOUT = (
    "wanted are scans, or pictures in threes whose names say front, left and right, in any folders; all files of one "
    "folder are taken for one subject"
)


def index_unlabelled(path: str | Path, source: str = "unlabelled") -> Index:
    """Every usable scan and triple of pictures in a folder and all below it; the subject is the folder a file lies in.

    Raises:
        ValueError: no such folder, or not one usable face in it.
    """
    path = Path(path)
    if not path.is_dir():
        raise ValueError(f"there is no folder {path.name!r}; {LAYOUT}")
    draft = Draft(path, (UNKNOWN,), layout=LAYOUT)
    _add(draft, path, source)
    return draft.finish()


def without_labels(index: Index) -> Index:
    """The same faces and subjects with nothing said of them: what a division into splits may look at where training
    must not depend on labels."""
    records = tuple(replace(r, label=UNKNOWN, also=(), intensity=None, metadata={}) for r in index.records)
    return Index(index.root, (UNKNOWN,), records)


def _add(draft: Draft, folder: Path, source: str) -> None:
    files: list[str] = []
    for entry in _entries(draft, folder):
        if entry.is_dir():
            _add(draft, entry, source)
        else:
            files.append(_relative(draft, entry))
    subject = "." if folder == draft.root else _relative(draft, folder)
    for faces in _scans(draft, files) or _triples(draft, files):
        try:
            draft.records.append(Record(faces[0], subject, UNKNOWN, faces, source=source))
        except ValueError as error:  # a name that would be no safe path elsewhere
            draft.exclude(faces[0], str(error))
