"""What files hold, as short texts: two records with one fingerprint give the same views, whatever they are called."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from affectvlm.datasets.records import Record
from affectvlm.scan_io.images import IMAGE_EXTENSIONS
from affectvlm.scan_io.limits import MAX_FILE_BYTES

BESIDE = (".mtl", ".lm3", ".bnd", *IMAGE_EXTENSIONS)
"""Extensions of files that a reader of scans takes from beside a scan where they bear its name."""

SETTLED_NS = 5_000_000_000
"""A file that changed a moment ago may change again without its time showing it; its hash is not kept."""

PIECE = 4096
MOST_COMPARED = 20_000

_LINE = rb"[ \t]+(.+?)[ \t\r]*$"
_REFERENCES = {
    ".obj": re.compile(rb"^[ \t]*mtllib" + _LINE, re.MULTILINE | re.IGNORECASE),
    ".mtl": re.compile(rb"^[ \t]*map_k[ad]" + _LINE, re.MULTILINE | re.IGNORECASE),
    ".ply": re.compile(rb"^comment[ \t]+texturefile" + _LINE, re.MULTILINE | re.IGNORECASE),
    ".gltf": re.compile(rb'"uri"\s*:\s*"([^"]{1,1000})"'),
    ".wrl": re.compile(rb'\b(?:url|filename)\s*\[?\s*"([^"]{1,1000})"', re.IGNORECASE),
}
_REFERENCES[".vrml"] = _REFERENCES[".wrl"]
"""Extension → where a file of that kind names others."""


class Fingerprints:
    """Fingerprints of records under `root`; each file is read once.

    Args:
        memory: a JSON file that keeps the hashes of files by size and time of the last change, so that a large data set
            is read only once in all; names are kept as hashes. None keeps nothing.
    """

    def __init__(self, root: Path, memory: Path | None = None) -> None:
        self._root, self._memory = root, memory
        self._hashes: dict[Path, str] = {}
        self._kept: dict[str, list] = _remembered(memory)
        self._new: dict[str, list] = {}
        self._names: dict[Path, dict[str, str]] = {}

    def of_files(self, record: Record) -> str:
        """Of the files of a record, and nothing else.

        Raises:
            OSError: a file cannot be read.
        """
        return " ".join(f"{Path(file).suffix.lower()} {self._hash(self._root / file)}" for file in record.files)

    def of_views(self, record: Record) -> str:
        """Of all that the views of a record are made from: its files, and those that a reader takes beside them.

        Raises:
            OSError: a file cannot be read.
        """
        parts = [self.of_files(record)]
        if record.landmarks is not None:
            parts.append(f"landmarks {self._hash(self._root / record.landmarks)}")
        for number, file in enumerate(record.frame_landmarks):
            parts.append(f"landmarks {number} {'none' if file is None else self._hash(self._root / file)}")
        if not record.is_pictures:
            for file in record.files:
                beside = sorted(self._beside(self._root / file))
                parts += [f"{path.name.lower()} {self._hash(path)}" for path in beside]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def keep(self) -> None:
        """Write down what was hashed, beside what others have written meanwhile."""
        if self._memory is None or not self._new:
            return
        self._memory.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._memory.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(_remembered(self._memory) | self._new), "utf-8")
        temporary.replace(self._memory)

    def _beside(self, scan: Path) -> set[Path]:
        """Materials, textures and landmarks of a scan, looked for as `scan_io` looks for them."""
        found: set[Path] = set()
        wanted = [scan.stem + extension for extension in BESIDE] + _named_in(scan)
        while wanted:
            path = self._find(scan.parent, wanted.pop())
            if path is None or path in found:
                continue
            found.add(path)
            if path.suffix.lower() == ".mtl":
                wanted += _named_in(path)
        return found

    def _find(self, folder: Path, reference: str) -> Path | None:
        """The file of a relative name, else the one of its last part; case does not matter."""
        parts = PurePosixPath(reference.replace("\\", "/")).parts
        if not parts or "\0" in reference:
            return None
        inside = folder.joinpath(*parts[:-1]) if ".." not in parts and parts[0] != "/" else folder
        for place in (inside, folder):
            name = self._listing(place).get(parts[-1].lower())
            if name is not None:
                return place / name
        return None

    def _listing(self, folder: Path) -> dict[str, str]:
        """Lower-case name → name of the files in a folder."""
        if folder not in self._names:
            names = [entry.name for entry in folder.iterdir() if entry.is_file()] if folder.is_dir() else []
            self._names[folder] = {name.lower(): name for name in sorted(names)}
        return self._names[folder]

    def _hash(self, path: Path) -> str:
        if path not in self._hashes:
            if not path.is_file():  # a pipe or a device would keep us waiting
                raise FileNotFoundError(f"no file {path.name}")
            name = hashlib.sha256(str(path.absolute()).encode("utf-8", "surrogateescape")).hexdigest()[:24]
            state = path.stat()
            size, changed, known = self._kept.get(name, [0, 0, ""])
            if (size, changed) != (state.st_size, state.st_mtime_ns) or self._memory is None:
                with path.open("rb") as file:
                    known = hashlib.file_digest(file, "sha256").hexdigest()
                if time.time_ns() - state.st_mtime_ns > SETTLED_NS:
                    self._new[name] = [state.st_size, state.st_mtime_ns, known]
            self._hashes[path] = known
        return self._hashes[path]


Place = tuple[Record, str]
"""A record and one of its files."""


def shared_files(root: Path, records: Sequence[Record], most: int = MOST_COMPARED) -> tuple[list[list[Place]], int]:
    """Equal files, neither empty, in records of two people; and how many files were not compared.

    Sizes are compared first, then a piece of the middle, and only what agrees in both is read to its end.

    Args:
        most: files of equal size beyond this number are passed over, evenly: reading pieces of a million takes hours.

    Returns:
        For each content that several people have, all its places in the order of the records. What cannot be read is
        nobody's copy.
    """
    sizes: dict[int, list[Place]] = defaultdict(list)
    for place in ((record, file) for record in records for file in record.files):
        try:
            sizes[(root / place[1]).stat().st_size].append(place)
        except OSError:
            continue
    alike = [same for size, same in sorted(sizes.items()) if size and _people(same) > 1]
    total = sum(map(len, alike))
    step = max(1, -(-total // most))
    kept, passed = alike[::step], sum(map(len, alike)) - sum(map(len, alike[::step]))
    closer = [part for same in kept for part in _parted(root, same, whole=False)]
    return [equal for part in closer for equal in _parted(root, part, whole=True)], passed


def _parted(root: Path, places: Sequence[Place], whole: bool) -> list[list[Place]]:
    """Places of several people whose files agree: wholly, or in a piece of their middle."""
    groups: dict[bytes, list[Place]] = defaultdict(list)
    for place in places:
        try:
            with (root / place[1]).open("rb") as file:
                if whole:
                    content = hashlib.file_digest(file, "sha256").digest()
                else:
                    file.seek(max(0, os.fstat(file.fileno()).st_size - PIECE) // 2)
                    content = file.read(PIECE)
        except OSError:
            continue
        groups[content].append(place)
    return [same for same in groups.values() if _people(same) > 1]


def _people(places: Sequence[Place]) -> int:
    return len({(record.source, record.subject) for record, _ in places})


def _remembered(memory: Path | None) -> dict[str, list]:
    try:
        return json.loads(memory.read_text("utf-8")) if memory else {}
    except (OSError, ValueError):
        return {}


def _named_in(file: Path) -> list[str]:
    """The names that a scan or a material file refers to."""
    pattern = _REFERENCES.get(file.suffix.lower())
    if pattern is None or file.stat().st_size > MAX_FILE_BYTES:
        return []
    data = file.read_bytes()
    if file.suffix.lower() == ".ply":
        data = data[: max(0, data.find(b"end_header"))]  # what follows may be binary
    names = [match[1].decode("utf-8", "replace").strip() for match in pattern.finditer(data)]
    return [part for name in names if name for part in (name, name.split()[-1])]  # options may stand before a name
