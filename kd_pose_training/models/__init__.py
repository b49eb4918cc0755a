"""Networks: bricks and backbones, the vote networks and the dense networks built from them."""

from kd_pose_training.models.build import build_model
from kd_pose_training.models.codenet import CodeNet
from kd_pose_training.models.votenet import VoteNet

__all__ = ["CodeNet", "VoteNet", "build_model"]
