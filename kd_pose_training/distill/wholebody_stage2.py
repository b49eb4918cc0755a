"""Stage 2 of DWPose (arXiv 2307.15880): a network's own head teaches a fresh one.

    loss = gamma logit    (eq. 7)

The backbone of a trained network is frozen and run once a batch; its head answers, a new head
learns the answer. The published code adds the loss against the labels (``second_labels``), and
its backbone's norm statistics drift, which these do not.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kd_pose_training.data.simcc_batch import SimccBatch
from kd_pose_training.distill.frozen import Frozen
from kd_pose_training.distill.wholebody_config import WholebodyDistillConfig
from kd_pose_training.distill.wholebody_stage1 import label_loss, logit_term
from kd_pose_training.models.rtmcc_head import RTMCCHead
from kd_pose_training.models.simcc_net import SimccNet
from kd_pose_training.tasks.wholebody import Logits, SimccTask


class HeadTeacher(Frozen):
    """A finished head: map (B, C, H, W) -> logits."""

    def __init__(self, head: RTMCCHead) -> None:
        super().__init__()
        self.head = head
        self.freeze()

    @torch.no_grad()
    def forward(self, features: Tensor) -> Logits:
        return self.head(features)


class StageTwoTask(SimccTask):
    """:class:`SimccTask` with the term ``logit``; only the head of ``network`` is trained.

    Args:
        trained: a finished network, of stage 1 or any other. Its head becomes the teacher and is
            replaced by a fresh one; its backbone is frozen.
    """

    def __init__(self, trained: SimccNet, config: WholebodyDistillConfig) -> None:
        super().__init__(trained, label_loss(config, trained.num_keypoints))
        self.config, self.teacher = config, HeadTeacher(trained.head)
        trained.head = trained.new_head()
        trained.freeze_backbone()
        self.weights = {"logit": config.second_logit_weight}
        if config.second_labels:
            self.weights["keypoints"] = 1.0

    def forward(self, batch: SimccBatch) -> dict[str, Tensor]:
        """Terms of :meth:`SimccTask.terms` (``keypoints`` only to watch where it has no weight)
        and ``logit``, without weights."""
        with torch.no_grad():
            features = self.network.backbone(batch.images)
        logits = self.network.head(features)
        result = self.label_terms(logits, batch)
        result["logit"] = logit_term(logits, self.teacher(features), self.config)
        return result
