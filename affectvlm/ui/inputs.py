"""The ways to bring a face: a scan file, three photos, three camera shots, or a sample."""

from __future__ import annotations

import streamlit as st

from affectvlm.emotions import EKMAN
from affectvlm.ui import engine, sequence_state, state, words

MAX_MB = 200
PHOTO_TYPES = ("jpg", "jpeg", "png", "webp", "bmp")
SCAN, PHOTOS, CAMERA = "3D scan", "Three photos", "Camera"
ONE, MANY = "One face", "Many files"
SEQUENCE_PAGE = "pages/sequence.py"
TURN_HINT = {
    "front": "Look straight into the camera.",
    "left": "Turn the head so that the left cheek shows.",
    "right": "Turn the head so that the right cheek shows.",
}


def many() -> bool:
    """Whether the visitor wants a table of many files instead of one face."""
    way = st.segmented_control(
        "How many", (ONE, MANY), default=ONE, required=True, key="how_many", label_visibility="collapsed",
        persist_state="session",
    )  # fmt: skip
    return way == MANY


def show() -> None:
    if st.session_state.pop("brought_sequence", False):
        st.switch_page(SEQUENCE_PAGE)
    way = st.segmented_control(
        "How", (SCAN, PHOTOS, CAMERA), default=SCAN, required=True, key="way", label_visibility="collapsed"
    )
    {SCAN: _scan, PHOTOS: _photos, CAMERA: _camera}[way]()


def show_samples(question: str = "No face at hand?") -> None:
    st.markdown(f"**{question}** Take one of ours, posing …")
    frames = []
    columns = st.container(key="samples").columns(len(EKMAN))
    for column, emotion in zip(columns, EKMAN, strict=True):
        with column:
            frames.append(st.empty())
            frames[-1].html('<div class="coming"></div>')  # keeps the picture's place
            sample = state.Face.from_sample(emotion)
            st.button(emotion, key=f"sample_{emotion}", width="stretch", on_click=state.set_face, args=(sample,))
    for frame, emotion in zip(frames, EKMAN, strict=True):  # after the buttons, which need not wait for the pictures
        frame.image(engine.sample_picture(emotion), width="stretch", alt=f"a modelled face posing {emotion}")


def _key(name: str) -> str:
    return f"{name}_{state.visit()}"


def _scan() -> None:
    from affectvlm.scan_io import EXTENSIONS

    key = _key("scan")

    def brought() -> None:
        from affectvlm.sequences import is_sequence

        upload = st.session_state[key]
        if upload is None or not _fits(upload):
            return
        name, data = upload.name, upload.getvalue()
        if is_sequence((data, name)):  # frames of one face: they have a page of their own
            sequence_state.bring([(name, data)])
            st.session_state["brought_sequence"] = True
        else:
            state.set_face(state.Face.from_scan(name, data))

    st.file_uploader(
        "A 3D scan of a face or head, in any position and unit; a zip may hold an OBJ with its material and texture",
        type=[extension.lstrip(".") for extension in EXTENSIONS],
        key=key,
        max_upload_size=MAX_MB,
        on_change=brought,
    )


def _photos() -> None:
    keys = {role: _key(f"photo_{role}") for role in state.ROLES}

    def brought() -> None:
        photos = _given(keys)
        if len(photos) == len(state.ROLES):
            state.set_face(state.Face.from_photos(photos))

    for column, (role, key) in zip(st.columns(3), keys.items(), strict=True):
        with column:
            st.file_uploader(
                words.VIEW_TITLES[role], type=list(PHOTO_TYPES), key=key, max_upload_size=MAX_MB, on_change=brought
            )
    _go_on(_given(keys))


def _given(keys: dict[str, str]) -> dict[str, bytes]:
    uploads = {role: st.session_state.get(key) for role, key in keys.items()}
    return {role: upload.getvalue() for role, upload in uploads.items() if upload is not None and _fits(upload)}


def _camera() -> None:
    shots: dict[str, bytes] = st.session_state.setdefault("shots", {})
    columns = st.columns([2, 1])
    missing = [role for role in state.ROLES if role not in shots]
    with columns[1]:
        for role in shots:
            st.image(shots[role], width=140, caption=words.VIEW_TITLES[role])
            st.button("Take again", key=f"again_{role}", type="tertiary", on_click=lambda r=role: shots.pop(r))
    if missing:
        with columns[0]:
            _shoot(missing[0], shots)
    _go_on(shots)


def _shoot(role: str, shots: dict[str, bytes]) -> None:
    key = _key(f"shot_{role}_{len(shots)}")

    def taken() -> None:
        picture = st.session_state[key]
        if picture is not None:
            shots[role] = picture.getvalue()
            if len(shots) == len(state.ROLES):
                state.set_face(state.Face.from_photos(dict(shots)))

    st.camera_input(f"{words.VIEW_TITLES[role]}: {TURN_HINT[role]}", key=key, on_change=taken)


def _go_on(photos: dict[str, bytes]) -> None:
    """One or two photos are enough to go on, if the visitor says so."""
    if 0 < len(photos) < len(state.ROLES):
        missing = " and ".join(words.VIEW_TITLES[role].lower() for role in state.ROLES if role not in photos)
        with st.container(horizontal=True, vertical_alignment="center"):
            st.button("Go on with these", on_click=lambda: state.set_face(state.Face.from_photos(dict(photos))))
            st.caption(f"Still missing: {missing}. The answer is better with all three.")


def _fits(upload) -> bool:
    """The browser checks the size too, but only the browser."""
    if upload.size <= MAX_MB * 2**20:
        return True
    state.set_face(None, f"{upload.name} has {upload.size / 2**20:.0f} MB; at most {MAX_MB} MB are taken.")
    return False
