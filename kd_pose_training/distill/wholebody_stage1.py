"""Stage 1 of DWPose (arXiv 2307.15880): labels, teacher's features and teacher's logits.

    loss = keypoints + r(t) (alpha feature + beta logit)    (eq. 6)

The teacher's share falls linearly over the run. Unlike in the published code the teacher is in
eval mode: there it normalises with the statistics of the batch, which move.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kd_pose_training.data.simcc_batch import SimccBatch
from kd_pose_training.distill.frozen import Frozen
from kd_pose_training.distill.teacher import TeacherError
from kd_pose_training.distill.wholebody_config import WholebodyDistillConfig, decay, epoch_at
from kd_pose_training.losses.feature_mimic import feature_mimic_loss
from kd_pose_training.losses.logit_distillation import logit_distillation_loss
from kd_pose_training.models.simcc_net import SimccNet
from kd_pose_training.tasks.wholebody import LabelLoss, Logits, SimccTask


class SimccTeacher(Frozen):
    """A finished network: images (B, 3, H, W) -> its backbone's map and its logits."""

    def __init__(self, network: SimccNet) -> None:
        super().__init__()
        self.network = network
        self.freeze()

    @torch.no_grad()
    def forward(self, images: Tensor) -> tuple[Tensor, Logits]:
        features = self.network.backbone(images)
        return features, self.network.head(features)


def label_loss(config: WholebodyDistillConfig, keypoints: int) -> LabelLoss:
    """The loss against the labels as `config` scales it, for K keypoints."""
    return LabelLoss(config.beta, config.reference_batch * keypoint_factor(config, keypoints))


def keypoint_factor(config: WholebodyDistillConfig, keypoints: int) -> int:
    """What turns a mean over K keypoints into what `config` asks for."""
    return 1 if config.keypoint_mean else keypoints


class StageOneTask(SimccTask):
    """:class:`SimccTask` with the terms ``feature`` and ``logit``, in training only.

    ``extras`` is the 1x1 convolution that brings the student's map to the teacher's channels; it
    is trained along and thrown away. None where the channels are the same.

    Args:
        network: the student.
        teacher: a network for the same input size and keypoints; it is frozen in place.

    Raises:
        TeacherError: another input size or number of keypoints.
    """

    def __init__(self, network: SimccNet, teacher: SimccNet,
                 config: WholebodyDistillConfig) -> None:
        super().__init__(network, label_loss(config, network.num_keypoints))
        for name, theirs, mine in (
                ("input_size", teacher.codec.input_size_wh, network.codec.input_size_wh),
                ("keypoints", teacher.num_keypoints, network.num_keypoints)):
            if theirs != mine:
                raise TeacherError(f"the teacher has {name} {theirs}, the student {mine}; they "
                                   "must be equal")
        self.config, self.teacher = config, SimccTeacher(teacher)
        widths = network.backbone.channels, teacher.backbone.channels
        self.extras = nn.Conv2d(*widths, 1) if widths[0] != widths[1] else None
        self.begin(0, 1)

    def begin(self, iteration: int, iterations: int) -> None:
        """Weights of an iteration (from 0) of a run; constant within an epoch."""
        epochs = self.config.epochs
        share = (decay(epoch_at(iteration, iterations, epochs), epochs) if self.config.decay
                 else 1.0)
        self.weights = {"keypoints": 1.0, "feature": share * self.config.feature_weight,
                        "logit": share * self.config.logit_weight}

    def forward(self, batch: SimccBatch) -> dict[str, Tensor]:
        """Terms of :meth:`SimccTask.terms`, ``feature`` and ``logit``, all without weights."""
        features = self.network.backbone(batch.images)
        logits = self.network.head(features)
        result = self.label_terms(logits, batch)
        their_features, their_logits = self.teacher(batch.images)
        adapted = features if self.extras is None else self.extras(features)
        result["feature"] = feature_mimic_loss(adapted, their_features,
                                               self.config.feature_mean).mean()
        result["logit"] = logit_term(logits, their_logits, self.config)
        return result


def logit_term(student: Logits, teacher: Logits, config: WholebodyDistillConfig) -> Tensor:
    """The term ``logit`` of both stages."""
    per_image = logit_distillation_loss(student, teacher, config.beta, config.entropy)
    return keypoint_factor(config, student[0].shape[1]) * per_image.mean()
