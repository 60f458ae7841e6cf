"""Mesh: the current scan, to be turned with the mouse."""

import streamlit as st

from affectvlm.ui import engine, frame, inputs, sidebar, state, viewers

frame.require()
st.title("The face in three dimensions")
face, folder = state.current_face(), sidebar.chosen(engine.checkpoints())
if face is None:
    st.markdown("There is no face yet. Bring a scan on the first page, or take a sample here.")
    st.page_link("pages/classify.py", label="Bring a face", icon=":material/arrow_back:")
    inputs.show_samples()
elif face.kind == "photos":
    st.markdown("The current face came as photos, which have no mesh to turn. Bring a scan, or take a sample here.")
    inputs.show_samples()
else:
    st.markdown("Drag to turn, scroll to come closer, shift and drag to move.")
    viewers.show(face, folder)
