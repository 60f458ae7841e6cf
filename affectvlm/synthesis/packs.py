"""Face models from elsewhere, as users have them: a checkout, packed once into one .npz, or that .npz."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from affectvlm.scan import ScanError

Model = TypeVar("Model")


def load_packed(
    make: Callable[[dict[str, np.ndarray]], Model], path: str | Path, cache: str | Path | None,
    pack_checkout: Callable[[Path, Path], Path], file_name: str, what: str,
) -> Model:  # fmt: skip
    """What `make` makes of a pack's arrays; nothing in it is ever unpickled.

    Args:
        path: the .npz file, or the folder of a checkout, which `pack_checkout` reads where it is not packed yet.
        cache: where a checkout's pack is kept and found again; None = `file_name` in the user's cache folder.
        what: the model's name, for errors.

    Raises:
        ScanError: neither form is found at `path`, or its content is not that of the model.
    """
    path = Path(path)
    if path.is_dir():
        pack_file = Path(cache) if cache else Path.home() / ".cache" / "affectvlm" / file_name
        if not pack_file.is_file():
            pack_checkout(path, pack_file)
        path = pack_file
    if not path.is_file():
        raise ScanError(f"{path.name}: no such file; the packed {what} or a checkout of it is needed")
    try:
        with np.load(path, allow_pickle=False) as pack:
            return make({key: pack[key] for key in pack.files})
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ScanError(f"{path.name} is not a packed {what}: {error}") from error
