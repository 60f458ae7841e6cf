"""About: what the answer is and is not, the chosen model in plain words, privacy, licences and version."""

import streamlit as st

from affectvlm.ui import about, engine, frame, sidebar, words

frame.require()
st.title("About")
st.markdown(f"{words.TAGLINE} Here is what that means, and how far to trust it.")
folder = sidebar.chosen(engine.checkpoints())
about.show_use(folder)
st.divider()
if folder is None:
    st.info(words.NO_MODEL, icon=":material/info:")
else:
    about.show_model(folder)
st.divider()
about.show_house_rules()
