"""Poses of objects from camera images: the runtime library. NumPy and OpenCV; no ROS, no torch.

Start at `object_pose.ObjectPoseEstimator`. Nodes are in `nodes`, engines in `backends`.
"""
