"""Mesh: the current scan, to be turned with the mouse."""

import streamlit as st

from affectvlm.ui import engine, frame, inputs, sidebar, state, subject, viewers

frame.require()
st.title("The face in three dimensions")
face, folder = state.current_face(), sidebar.chosen(engine.checkpoints())
if face is None:
    subject.ask(None, "a scan")
elif face.kind == "photos":
    st.markdown("The current face came as photos, which have no mesh to turn. Bring a scan, or take a sample here.")
    inputs.show_samples("No scan at hand?")
else:
    st.markdown("Drag to turn, scroll to come closer, shift and drag to move.")
    viewers.show(face, folder)
