"""A folder of one's own scans or pictures → an `Index`.

    class/subject/anything.ply                  scans of any format of `scan_io`, in folders below as well
    class/subject/front.jpg left.jpg right.jpg  three pictures of one face; or with a name: smile_front.jpg, ...
    labels.csv                                  or any other table, see `table`

Class folders may be called by usual words ("Happiness", "AN", "4_anger"; `words` has them). A picture's role is a word
of its name, "front", "left" or "right", or a single letter f, l, r at its end ("smile_L.png"); "left" shows the
subject's left cheek. Numbers ("smile_0.png") are not taken, since no order of views is common. In a folder with scans,
pictures are their textures. Links to folders are not followed.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from affectvlm.datasets.draft import COMPANIONS, LAYOUT, PICTURES, SCANS, Draft, scan_stem
from affectvlm.datasets.records import Index, Record
from affectvlm.datasets.table import add_table
from affectvlm.datasets.words import class_of
from affectvlm.emotions import EKMAN
from affectvlm.rendering import VIEW_NAMES

TABLE = "labels.csv"

_LITTER = ("thumbs.db", "desktop.ini", "__macosx")
_ROLE_WORDS = {**{name: name for name in VIEW_NAMES}, "frontal": "front"}
_ROLE_LETTERS = {name[0]: name for name in VIEW_NAMES}


def index_folder(path: str | Path, classes: Sequence[str] = EKMAN + ("neutral",), source: str = "folder") -> Index:
    """Find the labelled faces of a folder or a table.

    Args:
        path: a folder in one of the layouts above (a `labels.csv` in it counts before its folders), or a CSV file.
        classes: the class set; labels outside of it are left out and reported.
        source: how the data set is called in records; see `Record`.

    Returns:
        The faces, and all that was left out with the reason.

    Raises:
        ValueError: no such folder or table, a table that cannot be read or lacks a column, or not one usable face.
    """
    path = Path(path)
    if path.is_dir():
        tables = [entry for entry in _listing(path) if entry.name.lower() == TABLE and entry.is_file()]
        draft, table = Draft(path, tuple(classes)), tables[0] if tables else None
    elif path.is_file():
        draft, table = Draft(path.parent, tuple(classes)), path
        if path.suffix.lower() in (*SCANS, *PICTURES):
            raise ValueError(f"{path.name} is one file; {LAYOUT}")
    else:
        raise ValueError(f"there is no folder and no table {path.name!r}; {LAYOUT}")
    if table is None:
        _add_classes(draft, source)
    else:
        add_table(draft, table, source)
    return draft.finish()


def _add_classes(draft: Draft, source: str) -> None:
    """The folders of classes, each with its folders of subjects."""
    folders_of: dict[str, list[str]] = defaultdict(list)
    for entry in _entries(draft, draft.root):
        if not entry.is_dir():
            _exclude_stray(draft, entry, "lies outside of the folders of classes")
            continue
        try:
            label = class_of(entry.name, draft.classes)
        except ValueError as error:
            draft.exclude(f"{entry.name}/", str(error) + _hint(draft, entry))
            continue
        folders_of[label].append(entry.name)
        _add_subjects(draft, entry, label, source)
    for label, names in folders_of.items():
        if len(names) > 1:
            draft.remarks.append(f"the folders {' and '.join(names)} are both {label}")
    tables = [entry.name for entry in draft.root.glob("*.csv")]
    if tables:
        draft.remarks.append(f"{' and '.join(sorted(tables))} was not read: name it itself, or call it {TABLE}")


def _hint(draft: Draft, folder: Path) -> str:
    """What to do where the folders are the other way round."""
    for entry in _listing(folder):
        try:
            if entry.is_dir() and class_of(entry.name, draft.classes):
                return "; it holds folders of classes, but the class is the outer folder: class/subject/files"
        except ValueError:
            continue
    return ""


def _add_subjects(draft: Draft, folder: Path, label: str, source: str) -> None:
    for entry in _entries(draft, folder):
        if entry.is_dir():
            _add_faces(draft, entry, label, entry.name.strip(), source)
        else:
            _exclude_stray(draft, entry, "no subject: it lies in no folder of a subject")


def _add_faces(draft: Draft, folder: Path, label: str, subject: str, source: str) -> None:
    """The faces of one subject in a folder and all below it."""
    files: list[str] = []
    for entry in _entries(draft, folder):
        if entry.is_dir():
            _add_faces(draft, entry, label, subject, source)
        else:
            files.append(_relative(draft, entry))
    for faces in _scans(draft, files) or _triples(draft, files):
        try:
            draft.records.append(Record(faces[0], subject, label, faces, source=source))
        except ValueError as error:  # a name that would be no safe path elsewhere
            draft.exclude(faces[0], str(error))


def _entries(draft: Draft, folder: Path) -> list[Path]:
    """What counts of a folder, sorted by name."""
    kept = []
    for entry in _listing(folder):
        if entry.name.startswith(".") or entry.name.lower() in _LITTER:
            draft.passed["files of the system"] += 1
        elif entry.is_symlink() and entry.is_dir():
            draft.exclude(_relative(draft, entry) + "/", "a link to a folder; links are not followed")
        elif entry.is_dir() or entry.is_file():
            kept.append(entry)
        else:
            draft.exclude(_relative(draft, entry), "no plain file, or a link to nothing")
    return kept


def _listing(folder: Path) -> list[Path]:
    """Everything in a folder, sorted by name.

    Raises:
        ValueError: it cannot be opened.
    """
    try:
        return sorted(folder.iterdir(), key=lambda entry: entry.name)
    except OSError as error:
        raise ValueError(f"the folder {folder.name!r} cannot be opened: {error.strerror}") from None


def _scans(draft: Draft, files: list[str]) -> list[tuple[str]]:
    """The scans among the files of one folder; where there are some, everything else belongs to them."""
    kept: dict[str, str] = {}
    scans = [file for file in files if _extension(file) in SCANS]
    for file in sorted(scans, key=lambda file: (SCANS.index(_extension(file)), file)):
        first = kept.setdefault(scan_stem(file).lower(), file)
        if first != file:
            draft.exclude(file, f"called like {first}, so taken for the same face in another format")
    if kept:
        for file in files:
            if _extension(file) not in SCANS:
                is_companion = _extension(file) in (*COMPANIONS, *PICTURES)
                draft.passed["textures and notes beside scans" if is_companion else _kind(file)] += 1
    return sorted((file,) for file in kept.values())


def _triples(draft: Draft, files: list[str]) -> list[tuple[str, ...]]:
    """The (front, left, right) among the pictures of one folder."""
    faces: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for file in files:
        if _extension(file) not in PICTURES:
            draft.passed[_kind(file)] += 1
            continue
        try:
            base, role = _role(Path(file).stem)
        except ValueError as error:
            draft.exclude(file, str(error))
            continue
        faces[base][role].append(file)
    kept = []
    for roles in faces.values():
        why = [f"no {name} picture" for name in VIEW_NAMES if name not in roles]
        why += [f"{len(found)} {name} pictures" for name, found in roles.items() if len(found) > 1]
        if not why:
            kept.append(tuple(roles[name][0] for name in VIEW_NAMES))
            continue
        for file in (file for found in roles.values() for file in found):
            draft.exclude(file, f"{' and '.join(why)} of this face; one each of front, left and right is needed")
    return kept


def _role(stem: str) -> tuple[str, str]:
    """Which face a picture shows, and which view of it, from its name.

    Raises:
        ValueError: no view, or more than one, is named.
    """
    words = [word for word in re.split(r"[\W_]+", stem.casefold()) if word]
    named = [place for place, word in enumerate(words) if word in _ROLE_WORDS]
    if len(named) > 1:
        raise ValueError(f"its name says {' and '.join(words[place] for place in named)}; one view is needed")
    if not named and words and words[-1] in _ROLE_LETTERS:
        named = [len(words) - 1]
    if not named:
        raise ValueError("a picture whose name does not say front, left or right (numbers are not taken for views)")
    role = words.pop(named[0])
    return "_".join(words), _ROLE_WORDS.get(role) or _ROLE_LETTERS[role]


def _exclude_stray(draft: Draft, file: Path, why: str) -> None:
    if _extension(file.name) in (*SCANS, *PICTURES):
        draft.exclude(_relative(draft, file), f"{why}; class/subject/files is needed")
    else:
        draft.passed[_kind(file.name)] += 1


def _relative(draft: Draft, path: Path) -> str:
    return path.relative_to(draft.root).as_posix()


def _extension(file: str) -> str:
    return Path(file).suffix.lower()


def _kind(file: str) -> str:
    return f"{_extension(file) or 'nameless'} files".encode("utf-8", "backslashreplace").decode()
