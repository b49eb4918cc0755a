"""From a configuration to its network, of whichever family."""

from __future__ import annotations

from kd_pose_training.config import ModelConfig
from kd_pose_training.models import votenet
from kd_pose_training.models.codenet import CODE_SIZES, CodeNet


def build_model(config: ModelConfig) -> votenet.VoteNet | CodeNet:
    """Network of a configuration whose numbers of classes and of keypoints or bits are known.

    Raises:
        ValueError: ``num_classes``, ``num_keypoints`` or ``code_bits`` is not set.
    """
    if not config.is_dense:
        return votenet.build_model(config)
    for name in ("num_classes", "code_bits"):
        if getattr(config, name) is None:
            raise ValueError(f"model.{name} is not set; give it or let the data set fill it in")
    return CODE_SIZES[config.size](config.num_classes, config.code_bits)
