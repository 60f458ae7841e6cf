"""A new training: what to train with which faces, for how long; checked, told as a command, and started."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from affectvlm.config import METHODS
from affectvlm.planning import CLASSES, PRESETS, Plan, places_named, settings_in
from affectvlm.preflight import FINE, STOP, WARNING, Check, check_data
from affectvlm.runs import RunError, free_name, is_running
from affectvlm.starting import HOME, as_typed, command_line, start
from affectvlm.ui import engine, training_state, visitors

SYNTHETIC, ICT, MAKEHUMAN, OWN = "Synthetic faces", "ICT-FaceKit", "MakeHuman", "My own faces"
DATA = {SYNTHETIC: "procedural", ICT: "ict", MAKEHUMAN: "makehuman", OWN: "folder"}
PLACES = {
    ICT: ("Folder of ICT-FaceKit, or a packed ict_face.npz", "/home/me/ICT-FaceKit"),
    MAKEHUMAN: ("Folder of MakeHuman, or a packed makehuman_face.npz", "/home/me/makehuman"),
    OWN: ("Folder or CSV file", "/home/me/my_scans"),
}
"""Faces → what the field for their place is called, and an example of a place."""
RANDOM = "random weights"
METHOD_TITLES = {"affectvlm": "AffectVLM", "multiviewvlm": "MultiviewVLM", "smilevlm": "SMILE-VLM", "mifar": "MiFaR"}
ABOUT_METHODS = {
    "affectvlm": "Learns from labelled faces: views of one emotion are pulled together, and to the words for it.",
    "multiviewvlm": "Reads no label: agreement of the views, and guesses of its own.",
    "smilevlm": "Reads no label: views that tell different things, and guesses of its own.",
    "mifar": "Reads neither labels nor words: views of one face are pulled together. To compare with.",
}
ABOUT_DATA = {
    SYNTHETIC: "Faces that the app makes itself, with every emotion: nothing to bring.",
    ICT: "Faces of an open model (MIT licence) that you have downloaded.",
    MAKEHUMAN: "Faces of the head of MakeHuman (CC0) that you have downloaded.",
    OWN: "A folder “class/subject/files” of scans or of pictures called front, left and right; or a CSV file with the "
    "columns file (or front, left, right), label and subject.",
}
CLASS_TITLES = {"ekman": "The six emotions", "bp4d": "Eight emotions (BP4D)", "4dme": "Five classes (4DME)"}
ICONS = {WARNING: ":orange[:material/warning:]", FINE: ":green[:material/check:]"}


def show(root: Path) -> None:
    """All choices, then the command, the check and the start."""
    choices, help_column = st.columns([3, 2], gap="large")
    with choices:
        plan = _choices(root)
    with help_column:
        overrides = _command(plan)
    if overrides is not None:
        with choices:
            _check_and_start(plan, root, overrides)


def _choices(root: Path) -> Plan:
    session = st.session_state
    method = st.segmented_control(
        "Method", METHODS, format_func=lambda name: METHOD_TITLES.get(name, name), default=METHODS[0], required=True,
        key="training_method", persist_state="session",
    )  # fmt: skip
    st.caption(ABOUT_METHODS.get(method, ""))
    data, path, layout, classes, mixed = _data()
    models = engine.checkpoints()
    begin = st.selectbox(
        "Begin from", [*models, RANDOM], key="training_start", persist_state="session",
        help="A trained model learns new faces in minutes; random weights need hours.",
    )  # fmt: skip
    preset = st.radio(
        "How long", list(PRESETS), format_func=lambda key: PRESETS[key].title,
        captions=[preset.about for preset in PRESETS.values()],
        key="training_preset", persist_state="session",
        help="On two CPU cores; a GPU takes a fraction of it.",
    )  # fmt: skip
    if session.get("training_name_used") or not session.get("training_name"):
        session["training_name"] = free_name(root, method)
        session["training_name_used"] = False
    name = st.text_input("Name", key="training_name", max_chars=80, persist_state="session")
    extra = _expert()
    begin = "" if begin in (RANDOM, None) else as_typed(models[begin].resolve())
    folder = "runs" if root.resolve() == HOME / "runs" else str(root.resolve())
    return Plan(name, method, preset, DATA[data], path, layout, mixed, begin, extra, folder, classes)


def _data() -> tuple[str, str, str, str, bool]:
    """Which faces, where they lie, in which layout, with which classes, and whether synthetic ones are added."""
    data = st.segmented_control(
        "Faces", list(DATA), default=SYNTHETIC, required=True, key="training_data", persist_state="session"
    )
    st.caption(ABOUT_DATA[data])
    if data == SYNTHETIC:
        return data, "", "folder", CLASSES[0], False
    if not visitors.may_name_paths():
        st.info(visitors.CLOSED, icon=":material/lock:")
        return data, "", "folder", CLASSES[0], False
    layout = _layout() if data == OWN else "folder"
    title, example = PLACES[data]
    path = st.text_input(
        f"{title}, on the machine that runs the app", key=f"training_path_{DATA[data]}", persist_state="session",
        placeholder=example,
    )  # fmt: skip
    classes = _classes() if data == OWN else CLASSES[0]
    mixed = classes == CLASSES[0] and st.toggle(
        "Add synthetic faces", key=f"training_mixed_{DATA[data]}", persist_state="session",
        help="They show every emotion, so that the model does not forget one that your faces lack.",
    )  # fmt: skip
    path = path.strip().strip("\"'")
    return data, str(HOME / Path(path).expanduser()) if path else "", layout, classes, mixed


def _layout() -> str:
    """In which layout a data set lies; not asked where there is only one."""
    from affectvlm.datasets import INDEXERS

    if len(INDEXERS) == 1:
        return "folder"
    return st.selectbox(
        "Layout", list(INDEXERS), key="training_layout", persist_state="session",
        format_func=lambda name: "class/subject/files, or a CSV file" if name == "folder" else name,
        help="The data sets of research lie in folders of their own making; choose yours by name.",
    )  # fmt: skip


def _classes() -> str:
    """What the faces are told apart into, with the words for it."""
    from affectvlm.prompts import PromptSet

    classes = st.selectbox(
        "Classes", CLASSES, key="training_classes", persist_state="session", format_func=CLASS_TITLES.get,
        help="The folders, or the labels of the table, must have these names. Other classes need a file of words: "
        "prompts.file=PATH in the settings for experts.",
    )  # fmt: skip
    st.caption(", ".join(PromptSet.load(classes).classes).capitalize() + ".")
    return classes


def _expert() -> str:
    with st.expander("Settings for experts"):
        return st.text_area(
            "One section.key=value a line", key="training_extra", persist_state="session", height=120,
            placeholder="optim.lr=1e-4\noptim.batch=32\nrun.seed=1",
            help="Any setting of affectvlm/config.py; they count over the choices above. Weights by name "
            "(model.pretrained) must be on the machine already: the app asks nothing of the network.",
        )  # fmt: skip


def _command(plan: Plan) -> list[str] | None:
    """The command for the same; or what is wrong with the choices, and None."""
    if plan.data != "procedural" and not visitors.may_name_paths():
        return None  # said beside the choice
    try:
        if not visitors.may_name_paths() and (closed := places_named(settings_in(plan.extra))):
            raise ValueError(f"{closed[0]} names a place on the server's machine. {visitors.CLOSED}")
        overrides = plan.overrides()
        plan.config()
    except ValueError as error:
        st.error(training_state.sentence(str(error)), icon=":material/error:")
        return None
    st.markdown("**The same in a shell**")
    st.code(command_line(overrides), language="bash", wrap_lines=True)
    st.caption("In the folder of train.py. Settings that are not named keep their defaults (affectvlm/config.py).")
    return overrides


def _check_and_start(plan: Plan, root: Path, overrides: list[str]) -> None:
    with st.container(horizontal=True):
        starting = st.button("Start training", type="primary", icon=":material/play_arrow:")
        checking = st.button("Check the data", icon=":material/fact_check:")
    training_state.show_problem()
    if starting and _begun_here(root, overrides):  # the second half of a double click
        _open(plan.name.strip())
    key = "\n".join(text for text in overrides if not text.startswith("run.name="))
    kept: tuple[str, Check] | None = st.session_state.get("training_check")
    check = kept[1] if kept and kept[0] == key and not checking else None
    if checking or (starting and check is None):
        check = _look(plan)
        st.session_state["training_check"] = (key, check)
    if check is not None:
        _show_check(check)
    if starting and check is not None:
        if not check.ok:
            st.error("Not started: see above what to change first.", icon=":material/block:")
            return
        _start(plan, root, overrides)


def _look(plan: Plan) -> Check:
    bar = st.progress(0.0, "Looking at what the training needs …")
    try:
        return check_data(plan.config(), HOME, lambda share, text: bar.progress(share, text[:1].upper() + text[1:]))
    finally:
        bar.empty()


def _show_check(check: Check) -> None:
    with st.container(border=True):
        points = sum(finding.level == WARNING for finding in check.findings)
        ready = (
            f"Training can start; {points} {'points' if points > 1 else 'point'} to look at."
            if points
            else "All is well."
        )
        st.markdown(f"**{ready if check.ok else 'Training cannot work like this.'}**")
        for finding in check.findings:
            text = " ".join(training_state.sentence(part) for part in (finding.text, finding.advice) if part)
            if finding.level == STOP:
                st.error(text, icon=":material/block:")
            else:
                st.markdown(f"{ICONS[finding.level]} {text}")
        if check.splits:
            st.markdown("**Who is trained on, and who only tested on**")
            rows = {
                name: {"people": check.subjects[name], "faces": sum(counts.values()), **counts}
                for name, counts in check.splits.items()
            }
            st.dataframe(list({"": name, **row} for name, row in rows.items()), hide_index=True)
        if check.summary:
            with st.expander("Everything that was found"):
                st.text(check.summary)


def _start(plan: Plan, root: Path, overrides: list[str]) -> None:
    try:
        start(root, plan.name, overrides)
    except (RunError, ValueError) as error:
        st.error(training_state.sentence(str(error)), icon=":material/error:")
        return
    st.session_state["training_begun"] = (plan.name.strip(), tuple(overrides))
    _open(plan.name.strip())


def _begun_here(root: Path, overrides: list[str]) -> bool:
    name, begun = st.session_state.get("training_begun", ("", ()))
    return begun == tuple(overrides) and is_running(root / name)


def _open(name: str) -> None:
    """Watch what was started; the next training gets another name."""
    st.session_state["training_name_used"] = True
    training_state.watch(name)
    st.rerun()
