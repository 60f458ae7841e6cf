"""What the app is made of, beside its pages: the current face, the shared predictor, figures, the mesh viewer.

The only part of the package that imports streamlit; `display` and `export_worker` do without it.
"""
