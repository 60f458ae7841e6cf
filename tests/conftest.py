"""Shared by all tests: faces of our own and a checkpoint, so that no test needs a file from anywhere."""

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

# before torch and open_clip are imported:
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may reach for the network
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # waiting threads leave the cores to the browser beside them
_no_runs = tempfile.TemporaryDirectory(prefix="affectvlm-runs-")
os.environ["AFFECTVLM_RUNS"] = _no_runs.name  # the trainings of this checkout are none of the tests' business

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def happy_scan():
    """A modelled face that smiles, in the canonical frame, with a colour per vertex."""
    from affectvlm.ui.engine import sample_scan

    return sample_scan("happy")


@pytest.fixture(scope="session")
def happy_ply(happy_scan) -> bytes:
    """The same as a binary PLY file, turned by 25 degrees, as an upload might be."""
    import trimesh

    from affectvlm.rendering import rotation_y

    vertices = happy_scan.vertices @ rotation_y(25.0).T
    mesh = trimesh.Trimesh(vertices, happy_scan.faces, vertex_colors=happy_scan.colors, process=False)
    return mesh.export(file_type="ply")


@pytest.fixture(scope="session")
def happy_photos(happy_scan) -> dict[str, bytes]:
    """The same photographed from three sides: role → PNG."""
    from PIL import Image

    from affectvlm.rendering import render_views

    photos = {}
    views = render_views(happy_scan, "textured", size=320)
    for role, view in zip(("front", "left", "right"), views, strict=True):
        stream = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(view)).save(stream, "PNG")
        photos[role] = stream.getvalue()
    return photos


@pytest.fixture(scope="session")
def checkpoint_folder(tmp_path_factory) -> Path:
    """The shipped checkpoint; where none is shipped, one of the same shape that was never trained."""
    from affectvlm.model import Card, CheckpointError, build_model, save_checkpoint
    from affectvlm.predictor import default_checkpoint
    from affectvlm.prompts import PromptSet

    try:
        return default_checkpoint()
    except CheckpointError:
        import torch

        torch.manual_seed(0)
        model = build_model("affectvlm-compact")
        folder = tmp_path_factory.mktemp("checkpoints") / "untrained"
        save_checkpoint(folder, model, Card.of(model, PromptSet.load(), "untrained"))
        return folder


@pytest.fixture(scope="session")
def predictor(checkpoint_folder):
    from affectvlm.predictor import Predictor

    return Predictor.from_checkpoint(checkpoint_folder, device="cpu")
