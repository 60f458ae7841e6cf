"""The one sequence of a visit, how it is to be looked at, and the work on it. All of it lives in the session."""

from __future__ import annotations

import hashlib
from pathlib import Path

import streamlit as st

from affectvlm.ui import clips, engine, state
from affectvlm.ui.clips import Clip, SeenClip
from affectvlm.ui.work import Desk, Work

MOST = {16: "16", 32: "32", 64: "64", 128: "128", 256: "256"}
"""How many frames may be looked at, and how the page says it."""

DEFAULT_MOST = 32
_samples: dict[str, SeenClip] = {}
"""Answers to samples, which are the same for everybody; a sample is no visitor's face."""


def clip() -> Clip | None:
    return st.session_state.get("clip")


def set_clip(found: Clip | None, problem: str | None = None) -> None:
    """Makes this the sequence of the visit; `problem` is said in place of an answer."""
    st.session_state["clip"] = found
    st.session_state["clip_problem"] = problem
    st.session_state["clip_work"] = None
    st.session_state["clip_frame"] = None
    st.session_state["clip_visit"] = uploads() + 1  # the inputs are empty again


def bring(files: list[tuple[str, bytes]]) -> None:
    """Makes uploaded files the sequence of the visit, or says why they cannot be."""
    try:
        set_clip(Clip.from_files(files))
    except ValueError as error:
        set_clip(None, str(error))


def problem() -> str | None:
    return st.session_state.get("clip_problem")


def uploads() -> int:
    """Part of the input's key: a new number gives an empty one."""
    return st.session_state.get("clip_visit", 0)


def fps() -> float | None:
    """Frames a second as the visitor says, or None."""
    return st.session_state.get("clip_fps") or None


def most() -> int:
    return st.session_state.get("clip_most") or DEFAULT_MOST


def work(folder: Path) -> Work[SeenClip]:
    """The work on the sequence of the visit: started where it was not yet, or not in this way."""
    found = clip()
    about = f"{found.digest}:{most()}:{fps()}:{engine.stamp(folder)}"
    key = hashlib.sha256(about.encode()).hexdigest()[:24]  # names elements of the page; paths do not belong there
    going: Work[SeenClip] | None = st.session_state.get("clip_work")
    if going is None or going.key != key:
        st.session_state["clip_frame"] = None
        going = st.session_state["clip_work"] = Work(key, _look(key, found, folder, most(), fps()))
        st.session_state["clip_asked"] = engine.stamp(folder)
    return going


def finished(folder: Path) -> Work[SeenClip] | None:
    """The work on the sequence of the visit, where this model has answered it; starts nothing."""
    going: Work[SeenClip] | None = st.session_state.get("clip_work")  # goes with the sequence it is about
    if going is None or going.result is None or st.session_state["clip_asked"] != engine.stamp(folder):
        return None
    return going


def restart() -> None:
    st.session_state["clip_work"] = None


def stop() -> None:
    going = st.session_state.get("clip_work")
    if going is not None:
        going.stop()


def _look(key: str, found: Clip, folder: Path, frames: int, rate: float | None):
    """What the thread does; it must not hold the session's `Work`."""

    def do(desk: Desk) -> SeenClip:
        if key in _samples:
            return _samples[key]
        desk.tell(0.0, "Waking the model …")
        seen = clips.look(found, engine.predictor(folder), frames, rate, desk.tell)
        if found.data is None:
            _samples[key] = seen
            while len(_samples) > 12:
                _samples.pop(next(iter(_samples)), None)
        return seen

    return do


def frame() -> int | None:
    """Which of the frames that were looked at is on the screen, from 0; None = the apex, or else the middle."""
    return st.session_state.get("clip_frame")


def leave_at(index: int) -> None:
    """Notes where the visitor left the player."""
    st.session_state["clip_frame"] = index


def use_frame(index: int) -> None:
    """Makes frame `index` of the sequence the current face of the visit.

    Raises:
        ScanError: it cannot be read.
    """
    found = clip()
    name, data = clips.frame_file(found, index, fps())
    number = name.removeprefix("frame-").removesuffix(".ply")
    state.set_face(state.Face("scan", f"frame {number} of {found.title}", ((name, data),)))
