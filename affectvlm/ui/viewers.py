"""The mesh on the page: four viewers to choose from, and the next one when one fails.

`benchmarks/mesh_viewer.py` measures them. "PyVista" is pyvista's own offline page, exported by a process of ours and
shown in a frame: made once for a face, sent once, and no more than a kilobyte at each rerun after that. "stpyvista"
exports again at every rerun, in a fork of the server that can wait for ever; it runs only when chosen, watched by a
clock.
"""

from __future__ import annotations

import urllib.parse
from pathlib import Path

import plotly.graph_objects as go
import streamlit as st

from affectvlm.ui import engine, evidence, explaining, guarded_stpyvista, state, stills
from affectvlm.ui.display import DisplayMesh
from affectvlm.ui.export import ExportError
from affectvlm.ui.words import VIEW_TITLES

PYVISTA, STPYVISTA, PLOTLY, STILL = "PyVista", "stpyvista", "Plotly", "Still pictures"
VIEWERS = (PYVISTA, STPYVISTA, PLOTLY, STILL)
FALLBACKS = (PYVISTA, PLOTLY, STILL)  # stpyvista is only ever asked by choice
RELIEF, COLORS, EVIDENCE = "Surface", "Colours", "Evidence"
NO_EVIDENCE = "The chosen model reads faces in motion, so there is no evidence to paint on a face that holds still."
BACKGROUND = "#2b2f36"
SKIN = "#d8d4cf"
HEIGHT = 620


def show(face: state.Face, folder: Path | None) -> None:
    """The current scan in the viewer that was chosen, with the two choices above it."""
    reads_motion = engine.reads_motion(folder)
    folder = None if reads_motion else folder  # then there is no answer to this face, and no evidence
    try:
        scan = engine.frontal_scan(face, state.correction(), folder)
    except ValueError as error:  # ScanError: made to be read
        st.error(str(error), icon=":material/error:")
        return
    key = f"{face.digest}:{state.correction()}:{engine.stamp(folder) if folder else None}"
    mesh = engine.mesh_for_display(key, scan)
    with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="bottom"):
        look = _look(mesh, folder)
        viewer = st.selectbox("Viewer", VIEWERS, key="viewer", width=200)
    if look == EVIDENCE:
        case = evidence.Case(face, state.correction(), folder)
        question = evidence.Question(evidence.EMOTION, explaining.emotion(case))
        mesh, key = evidence.painted(case, question, mesh), f"{key}:{question}"
    for candidate in (viewer, *(other for other in FALLBACKS if other != viewer)):
        if SHOW[candidate](mesh, look != RELIEF, key):
            break
    triangles = f"{len(mesh.faces):,} triangles" + (f" of {mesh.total:,}" if mesh.total > len(mesh.faces) else "")
    st.caption(f"{face.title} · {triangles} · turned to the front")
    if reads_motion:
        st.caption(NO_EVIDENCE)
    if look == EVIDENCE:
        explaining.mesh_legend(case, question)


def _look(mesh: DisplayMesh, folder: Path | None) -> str:
    """What the surface shows: its relief, the scan's own colours, or the evidence for an emotion."""
    looks = [RELIEF, *([COLORS] if mesh.colors is not None else []), *([EVIDENCE] if folder is not None else [])]
    if len(looks) == 1:
        return RELIEF
    if st.session_state.get("mesh_look", RELIEF) not in looks:
        del st.session_state["mesh_look"]
    default = COLORS if COLORS in looks else RELIEF
    return st.segmented_control("Show", looks, default=default, required=True, key="mesh_look", persist_state="session")


def _pyvista(mesh: DisplayMesh, appearance: bool, key: str) -> bool:
    try:
        page = engine.exported_page(f"{key}:{appearance}:{BACKGROUND}:{SKIN}", mesh, appearance, BACKGROUND, SKIN)
    except ExportError as error:
        _failed(PYVISTA, error)
        return False
    st.iframe(page, height=HEIGHT)
    # asking whether the page is an address has put all of it, twice, into a cache that all sessions share for good
    urllib.parse.urlsplit.cache_clear()
    return True


def _stpyvista(mesh: DisplayMesh, appearance: bool, key: str) -> bool:
    try:
        with st.spinner("stpyvista is preparing the mesh …"):
            guarded_stpyvista.show(mesh, appearance, BACKGROUND, SKIN, height=HEIGHT)
    except ExportError as error:
        _failed(STPYVISTA, error)
        return False
    return True


def _plotly(mesh: DisplayMesh, appearance: bool, key: str) -> bool:
    st.plotly_chart(mesh_figure(mesh, appearance), key="mesh_figure", config={"displayModeBar": False}, theme=None)
    return True


def mesh_figure(mesh: DisplayMesh, appearance: bool) -> go.Figure:
    """The mesh in plotly: turned with the mouse too, but without an image texture."""
    x, y, z = mesh.vertices.T
    i, j, k = mesh.faces.T
    paint = {"vertexcolor": mesh.colors} if appearance and mesh.colors is not None else {"color": SKIN}
    surface = go.Mesh3d(
        x=x, y=-z, z=y, i=i, j=j, k=k,  # a quarter turn about x: plotly's z is up
        hoverinfo="skip",
        lighting={"ambient": 0.35, "diffuse": 0.75, "specular": 0.05, "roughness": 0.9},
        lightposition={"x": 0, "y": -2000, "z": 1200},
        **paint,
    )  # fmt: skip
    hidden = {"visible": False}
    figure = go.Figure(surface)
    figure.update_layout(
        height=HEIGHT,
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
        paper_bgcolor=BACKGROUND,
        uirevision="keep",  # the camera stays where it was turned to
        scene={
            "xaxis": hidden,
            "yaxis": hidden,
            "zaxis": hidden,
            "aspectmode": "data",
            "bgcolor": BACKGROUND,
            "camera": {"eye": {"x": 0, "y": -1.9, "z": 0.1}, "projection": {"type": "perspective"}},
        },
    )
    return figure


def _still(mesh: DisplayMesh, appearance: bool, key: str) -> bool:
    views = stills.views(mesh, appearance)
    columns = st.container(key="views").columns(3)
    for column, view, title in zip(columns, views, VIEW_TITLES.values(), strict=True):
        column.image(view, width="stretch", alt=f"{title} view")
    return True


def _failed(viewer: str, error: Exception) -> None:
    st.warning(f"{viewer} could not show the mesh, so the next viewer does.", icon=":material/warning:")
    with st.expander("What happened"):
        st.text(str(error).strip().splitlines()[0])


SHOW = {PYVISTA: _pyvista, STPYVISTA: _stpyvista, PLOTLY: _plotly, STILL: _still}
