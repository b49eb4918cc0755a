"""Networks: bricks, backbones and the vote network built from them."""

from kd_pose_training.models.votenet import VoteNet, build_model

__all__ = ["VoteNet", "build_model"]
