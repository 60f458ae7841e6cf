"""Classify: one face in, as a scan, three photos, three camera shots or a sample; its emotion out. Or many files."""

import streamlit as st

from affectvlm.ui import answers, batch, engine, frame, inputs, sidebar, state, words

frame.require()
st.title("Which emotion does this face show?")
st.markdown("Bring one face as a 3D scan or as three photos. You get one of six posed emotions, and how sure that is.")

face, folder = state.current_face(), sidebar.chosen(engine.checkpoints())
if folder is None:
    st.info(words.NO_MODEL, icon=":material/info:")
if state.problem():
    st.error(state.problem(), icon=":material/error:")

many = folder is not None and inputs.many()
if not many:
    with st.expander("Bring another face" if face else "Bring a face", expanded=face is None):
        inputs.show()

if many:
    batch.show(folder)
elif face is None:
    inputs.show_samples()
elif folder is not None:
    answers.show(face, folder)

st.space("small")
st.caption(f"{words.INTENDED_USE}  \n{words.PRIVACY}")
