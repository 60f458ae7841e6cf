"""A process of its own that decodes one Draco mesh: Draco in, NumPy arrays out. Run as a file by `draco.py`.

Damaged input can keep the decoder busy for minutes or make it ask for any amount of memory, and it is native code:
here it can neither stall nor take down the program that reads the scan. Arguments: bytes of memory, seconds, wanted
attribute ids. Output: the faces, then each wanted attribute (empty where absent), as consecutive .npy records.
"""

import io
import sys

import DracoPy
import numpy as np


def main() -> int:
    memory, seconds, *ids = (int(word) for word in sys.argv[1:])
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    except ImportError:  # Windows: the caller's time limit remains
        pass
    try:
        mesh = DracoPy.decode(sys.stdin.buffer.read())
        attributes = [mesh.get_attribute_by_unique_id(unique_id) for unique_id in ids]
        arrays = [np.asarray(getattr(mesh, "faces", np.zeros((0, 3))), np.int64).reshape(-1, 3)]
        arrays += [np.zeros((0, 0)) if a is None else np.asarray(a["data"]) for a in attributes]
    except (DracoPy.FileTypeException, ValueError, TypeError, KeyError, RuntimeError, MemoryError) as error:
        sys.stderr.write(str(error)[:200])
        return 1
    answer = io.BytesIO()
    for array in arrays:
        np.save(answer, array, allow_pickle=False)
    sys.stdout.buffer.write(answer.getvalue())
    return 0


if __name__ == "__main__":
    sys.exit(main())
