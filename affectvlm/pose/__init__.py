"""Frontal pose: any scan of a face → the canonical frame, with how sure that is, without landmarks.

`find_pose` says where the face is, `frontalize` also cleans, turns, crops and (for point clouds) meshes it.
"""

from affectvlm.pose.frontal import FrontalScan, Pose, euler_angles, find_pose, frontalize, turn

__all__ = ["FrontalScan", "Pose", "euler_angles", "find_pose", "frontalize", "turn"]
