"""The app's frame: settings of the page, navigation, and the sidebar that every page shares.

Start it with `make app`, or `streamlit run app.py`.
"""

import os

# before anything imports torch and open_clip:
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the app never asks the network
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # idle threads sleep: on a busy machine spinning ones cost 20 times

import streamlit as st  # noqa: E402

from affectvlm.ui import engine, frame, look, sidebar  # noqa: E402

look.set_up()
engine.warm_up()
page = frame.navigation()
models = engine.checkpoints()
with st.sidebar:
    place = sidebar.show(models)
page.run()
with place:  # after the page, which may have to work out the answer first
    sidebar.show_face(models)
