"""Many visitors at once: nobody gets another's answer, and memory stays flat."""

from __future__ import annotations

import asyncio
import gc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from affectvlm.emotions import EKMAN
from affectvlm.mesh_files import scan_ply
from affectvlm.ui import engine

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def faces() -> list[bytes]:
    """Six people, each with an expression of their own."""
    from affectvlm.synthesis.expressions import prototype

    model = engine.face_model()
    people = [model.sample_identity(np.random.default_rng(300 + i)) for i in range(len(EKMAN))]
    return [
        scan_ply(model.generate(person, prototype(emotion, 0.8))) for person, emotion in zip(people, EKMAN, strict=True)
    ]


def resident_mb() -> float:
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("memory is read from /proc, which this system has not")
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


def test_one_model_answers_many_threads_as_it_answers_one(faces, checkpoint_folder):
    """The shared predictor keeps nothing of a call: bit for bit the same, whoever else asks."""
    shared = engine.predictor(checkpoint_folder)
    alone = [shared.predict((data, "face.ply")) for data in faces]
    assert len({tuple(answer.probabilities.values()) for answer in alone}) == len(faces)

    def ask(number: int):
        return number % len(faces), engine.predictor(checkpoint_folder).predict(
            (faces[number % len(faces)], "face.ply")
        )

    with ThreadPoolExecutor(6) as pool:
        for which, answer in pool.map(ask, range(24)):
            assert answer.probabilities == alone[which].probabilities
            assert np.array_equal(answer.views, alone[which].views)
            assert np.array_equal(answer.scan.vertices, alone[which].scan.vertices)


def test_memory_is_flat_over_many_requests(faces, checkpoint_folder):
    shared = engine.predictor(checkpoint_folder)
    for data in faces:
        shared.predict((data, "face.ply"))
    gc.collect()
    before = resident_mb()
    for number in range(60):
        shared.predict((faces[number % len(faces)], f"{number}.ply"), correction=(number % 7, 0, 0))
    gc.collect()
    grown = resident_mb() - before
    print(f"\n60 answers: {before:.0f} MB before, {grown:+.1f} MB after")
    assert grown < 60  # each scan and its pictures are 5 MB


def done(work):
    """The result of a coroutine, in a thread of its own: the browser of other tests has a loop running in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


def test_visitors_of_a_real_server_see_their_own_faces_alone(checkpoint_folder, monkeypatch):
    """Three visitors over the real protocol, each with two faces, who turn the pages at the same time."""
    pytest.importorskip("websockets")
    from benchmarks import app_load

    monkeypatch.setenv("AFFECTVLM_CHECKPOINTS", str(checkpoint_folder.parent))
    url, process = app_load.start_server()
    try:
        done(app_load.run(url, process.pid, visitors=3, rounds=2))
    finally:
        process.terminate()
        process.wait(30)


def test_a_mixed_up_face_would_be_noticed():
    """The check itself: another visitor's name in any message fails the visit."""
    from benchmarks import app_load

    class Socket:
        async def recv(self) -> bytes:
            return b"\x0a\x10 current face: visitor-004-0.ply"

    visitor = app_load.Visitor("http://localhost:1", 3)
    visitor._socket = Socket()
    with pytest.raises(AssertionError, match="visitor-004"):
        done(visitor._receive())
