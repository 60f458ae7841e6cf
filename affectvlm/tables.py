"""Many answers as a table: one row a file, as JSON or CSV. The shell and the app's batch write the same columns."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from affectvlm.predictor import Prediction

logger = logging.getLogger(__name__)

AXES = ("yaw", "pitch", "roll")
JSON_KEYS = ("file", "ok", "error", "emotion", "confidence", "probabilities", "pose", "warnings", "timings_ms")
"""Of every row, in order; what a file that failed has none of is None."""

Row = dict[str, Any]


def answered(name: str, prediction: Prediction) -> Row:
    """The row of a file with its answer: JSON_KEYS and all else of `Prediction.to_dict`."""
    return {"file": name, "ok": True, "error": None, **prediction.to_dict()}


def failed(name: str, error: str) -> Row:
    """The row of a file that could not be answered."""
    return {**dict.fromkeys(JSON_KEYS), "file": name, "ok": False, "error": error, "warnings": []}


def row_of(name: str, answer: Callable[[], Prediction]) -> Row:
    """The row of a file, whatever becomes of it: one bad file must not end the run of a thousand."""
    try:
        return answered(name, answer())
    except ValueError as error:  # ScanError and PhotoError among them: made to be read
        return failed(name, one_line(error))
    except Exception as error:  # noqa: BLE001  the last net
        logger.debug("unexpected %s", type(error).__name__, exc_info=True)
        return failed(name, f"unexpected {type(error).__name__}: {one_line(error)}")


def csv_text(rows: Sequence[Row], classes: Sequence[str]) -> str:
    """A head and a line a row; nothing where there is none to say."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    heads = ["file", "ok", "error", "emotion", "confidence", "certainty", *classes]
    writer.writerow([*heads, *AXES, "pose_certainty", "warnings", "ms"])
    for one in rows:
        shares, pose = one["probabilities"] or {}, one["pose"] or {}
        writer.writerow(
            [one["file"], one["ok"], one["error"], one["emotion"], one["confidence"], one.get("certainty")]
            + [shares.get(name) for name in classes]
            + [pose.get(axis) for axis in (*AXES, "certainty")]
            + ["; ".join(one["warnings"]), (one["timings_ms"] or {}).get("total")]
        )
    return stream.getvalue()


def json_text(rows: Sequence[Row]) -> str:
    """All of every row as a list, indented."""
    return json.dumps(rows, indent=2, ensure_ascii=False) + "\n"


def one_line(error: BaseException) -> str:
    """What went wrong, as one line of text; a file that cannot be opened is named."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__
