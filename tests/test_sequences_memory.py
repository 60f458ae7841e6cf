"""Two thousand frames take no more memory than forty, wherever they come from."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from affectvlm.mesh_files import scan_ply
from affectvlm.pose import turn
from affectvlm.pose.cleaning import tidy
from affectvlm.scan import Scan
from tests.streamed import peaks

SHORT, LONG = 40, 2000
CELL_MM = 9.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the memory of a process is read from /proc"),
]


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> tuple[Path, Path]:
    """Folders of 40 and 2,000 scans: a face of a thousand triangles that turns to and fro, with noise."""
    from affectvlm.synthesis.procedural import ProceduralFace

    model, rng = ProceduralFace(), np.random.default_rng(0)
    face = coarse(model.generate(model.sample_identity(rng), {}))
    root = tmp_path_factory.mktemp("clips")
    for count in (SHORT, LONG):
        (root / str(count)).mkdir()
        for number in range(count):
            turned = face.transformed(turn(15 * np.sin(number / 20), 5 * np.sin(number / 30), 0), np.zeros(3))
            noisy = Scan(turned.vertices + rng.normal(0, 0.2, turned.vertices.shape), turned.faces)
            (root / str(count) / f"{number:04d}.ply").write_bytes(scan_ply(noisy))
    return root / str(SHORT), root / str(LONG)


def coarse(scan: Scan) -> Scan:
    """The front of a head with one vertex to a cell of the grid."""
    scan = tidy(scan.keep_vertices(scan.vertices[:, 2] > -80))
    cells = np.floor(scan.vertices / CELL_MM).astype(int)
    _, first, cell = np.unique(cells, axis=0, return_index=True, return_inverse=True)
    faces = cell.ravel()[scan.faces]
    faces = faces[(faces != np.roll(faces, 1, axis=1)).all(axis=1)]
    return Scan(scan.vertices[first], np.unique(faces, axis=0))


def zipped(folder: Path) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, file.name)
    return path


@pytest.mark.parametrize(("kind", "pack"), [("answers", zipped), ("pictures", Path)])
def test_two_thousand_frames_take_no_more_memory_than_forty(clips, kind, pack):
    size = sum(file.stat().st_size for file in clips[1].iterdir())
    said = peaks(kind, *map(pack, clips))
    assert said["frames"] == LONG
    assert said["long"] - said["short"] < size / 3  # the frames themselves have no place in what may be added
