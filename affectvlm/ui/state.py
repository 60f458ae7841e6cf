"""The one current face of a visit, shared by all pages, and what the visitor asked for about it.

All of it lives in the session: it is gone with the browser tab, or at once with `forget`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx
from streamlit.runtime.uploaded_file_manager import UploadedFile

from affectvlm.emotions import EKMAN

ROLES = ("front", "left", "right")
KINDS = ("scan", "photos", "sample", "sequence")
NO_CORRECTION = (0, 0, 0)


@dataclass(frozen=True)
class Face:
    """What was brought in, as it came.

    Attributes:
        kind: one of KINDS.
        title: how the pages call it: a file's name, "three photos", "a sample".
        files: name and bytes of the scan; or one pair for each of ROLES, bytes None where a photo is missing;
            or the emotion of a sample, or the key of an answered sequence, without bytes.
    """

    kind: str
    title: str
    files: tuple[tuple[str, bytes | None], ...]

    @cached_property
    def digest(self) -> str:
        """SHA-256 over kind, names and contents: the key of all that is derived from this face."""
        sha = hashlib.sha256(self.kind.encode())
        for name, data in self.files:
            content = b"" if data is None else hashlib.sha256(data).digest()
            sha.update(b"\0" + name.encode() + b"\0" + content)
        return sha.hexdigest()

    @classmethod
    def from_scan(cls, name: str, data: bytes) -> Face:
        return cls("scan", name, ((name, data),))

    @classmethod
    def from_photos(cls, photos: dict[str, bytes]) -> Face:
        """Photos by role (ROLES); missing ones left out."""
        count = {1: "one photo", 2: "two photos", 3: "three photos"}[len(photos)]
        return cls("photos", count, tuple((role, photos.get(role)) for role in ROLES))

    @classmethod
    def from_sample(cls, emotion: str) -> Face:
        if emotion not in EKMAN:
            raise ValueError(f"sample {emotion!r} is unknown; one of {', '.join(EKMAN)} is needed")
        return cls("sample", f"sample, posed {emotion}", ((emotion, None),))

    @classmethod
    def from_sequence(cls, title: str, key: str) -> Face:
        """A sequence that a model which reads motion has answered (`sequence_state.finished`); never current."""
        return cls("sequence", title, ((key, None),))


def current_face() -> Face | None:
    return st.session_state.get("face")


def set_face(face: Face | None, problem: str | None = None) -> None:
    """Makes this the current face; `problem` is said on the next page in place of an answer."""
    st.session_state["face"] = face
    st.session_state["problem"] = problem
    st.session_state["correction"] = NO_CORRECTION


def problem() -> str | None:
    return st.session_state.get("problem")


def correction() -> tuple[int, int, int]:
    """Yaw, pitch and roll in degrees by which the visitor corrected the pose that was found."""
    return st.session_state.get("correction", NO_CORRECTION)


def set_correction(angles: tuple[int, int, int]) -> None:
    st.session_state["correction"] = angles


def visit() -> int:
    """Part of every input's key: a new number gives empty inputs."""
    return st.session_state.setdefault("visit", 0)


def let_go(uploads: Iterable[UploadedFile] | None = None) -> None:
    """Drops bytes that streamlit itself would keep until the session ends, as it does even of inputs that are gone.

    Args:
        uploads: of inputs that are emptied now; None = all of the session.
    """
    context = get_script_run_ctx()
    if context is None:
        return
    if uploads is None:
        context.uploaded_file_mgr.remove_session_files(context.session_id)
        return
    for upload in uploads:
        context.uploaded_file_mgr.remove_file(context.session_id, upload.file_id)


def new_face() -> None:
    """Empties the inputs for another face."""
    let_go()
    st.session_state["visit"] = visit() + 1
    st.session_state["shots"] = {}
    set_face(None)


def forget() -> None:
    """Drops everything this session holds: uploads, answers, choices."""
    let_go()
    count = visit()
    for key in list(st.session_state):
        del st.session_state[key]
    st.session_state["visit"] = count + 1
