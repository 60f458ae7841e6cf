"""What a busy server does with freed memory."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
from pathlib import Path

import pytest

from affectvlm.ui.memory import set_aside

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = """
import ctypes, sys, threading
sys.path.insert(0, {root!r})
from affectvlm.ui.memory import share_heaps
if {share}:
    print(share_heaps())
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
all_there = threading.Barrier(6)
def work():
    all_there.wait()
    for _ in range(100):
        libc.malloc(1000)
    all_there.wait()
threads = [threading.Thread(target=work) for _ in range(6)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
libc.fdopen.restype = ctypes.c_void_p
out = ctypes.c_void_p(libc.fdopen(1, b"w"))
sys.stdout.flush()
libc.malloc_info(0, out)
libc.fflush(out)
"""


def heaps(share: bool) -> tuple[str, int]:
    """What six threads at once make of the C library's memory, and what was said to it."""
    script = SCRIPT.format(root=str(ROOT), share=share)
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True).stdout
    return said.splitlines()[0], len(re.findall("<heap nr=", said))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is told, which other systems have not")
def test_threads_share_a_few_heaps():
    said, count = heaps(share=True)
    if said == "False":
        pytest.skip("the C library is not glibc")
    assert said == "True" and 1 <= count <= 2
    assert heaps(share=False)[1] > 2


def test_what_is_loaded_is_left_out_of_the_search_for_garbage_and_later_garbage_is_found():
    class Knot:
        pass

    def left() -> int:
        return sum(isinstance(one, Knot) for one in gc.get_objects())

    try:
        set_aside()
        assert gc.get_freeze_count() > 10_000
        gc.collect()
        assert len(gc.get_objects()) < gc.get_freeze_count() / 10  # what a search looks at
        for _ in range(50):
            knot = Knot()
            knot.itself = knot
        del knot
        assert left() > 0
        gc.collect()
        assert left() == 0
    finally:
        gc.unfreeze()
