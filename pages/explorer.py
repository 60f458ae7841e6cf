"""Explorer: a face of our own making, moved muscle by muscle, and what the model says of it."""

import streamlit as st

from affectvlm.ui import engine, explorer, frame, sidebar, subject, words

frame.require()
st.title("Make a face")
st.markdown("Pose it, move its muscles, change the person, and watch what the model says. No scan is needed.")
folder = sidebar.chosen(engine.checkpoints())
if folder is None:
    st.info(words.NO_MODEL, icon=":material/info:")
elif engine.reads_motion(folder):
    subject.needs_motion()
    folder = None
explorer.show(folder)
st.caption(words.INTENDED_USE)
