"""AffectVLM: emotion from 3D/4D faces with a vision-language model.

Conventions used everywhere in the package:

* millimetres; right-handed axes: +x to the viewer's right (the subject's left), +y up, +z out of the face;
* degrees in settings and in the app;
* vertices (V, 3) float32, faces (F, 3) int32;
* views (N, H, W, 3) uint8 RGB in the order front, left, right; "left" is the view that shows the subject's left cheek;
* features (B, D) of unit length, logits (B, K).
"""

__version__ = "0.1.0"
