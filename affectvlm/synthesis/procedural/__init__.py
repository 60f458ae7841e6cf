"""Our own head, made of formulas: chart → surface → parts → people and muscles → scan.

`topology` lays out the skin, `surface` shapes it, `parts` adds eyes, teeth and ears, `muscles` and `motion` are the
action units, `identity` and `complexion` the people, `model` puts it together.
"""

from affectvlm.synthesis.procedural.identity import FaceIdentity, Look
from affectvlm.synthesis.procedural.model import ProceduralFace

__all__ = ["FaceIdentity", "Look", "ProceduralFace"]
