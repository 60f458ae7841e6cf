"""Sequences of scans (4D): frames read one at a time, one smooth pose over time, dynamic images of the views.

    with open_sequence("clip/") as sequence:             # folder, zip, animated glTF, list of scans
        faces, dynamic = FrontalFrames(sequence), DynamicViews()
        for face in faces:
            dynamic.add(render_buffers(face.scan))
    dynamic.pictures()                                   # (3, 224, 224, 3) uint8

Memory does not grow with the length of a sequence.
"""

from affectvlm.sequences.dynamic import DynamicViews
from affectvlm.sequences.frames import ScanSequence, is_sequence, open_sequence, spread_evenly
from affectvlm.sequences.streaming import FrontalFrame, FrontalFrames, Remarks
from affectvlm.sequences.tracking import PoseTrack, smooth_poses

__all__ = [
    "DynamicViews",
    "FrontalFrame",
    "FrontalFrames",
    "PoseTrack",
    "Remarks",
    "ScanSequence",
    "is_sequence",
    "open_sequence",
    "smooth_poses",
    "spread_evenly",
]
