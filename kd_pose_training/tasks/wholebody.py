"""Training step of the whole-body networks: a batch becomes named loss terms and figures."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kd_pose_training.data.simcc_batch import SimccBatch
from kd_pose_training.losses.simcc import BETA, simcc_loss
from kd_pose_training.models.simcc_net import SimccNet

Logits = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class LabelLoss:
    """How the loss against the labels is scaled.

    beta: factor before the softmax. factor: of the mean over the images of a batch. mmpose sums
    over the images of each GPU, so 64 is its loss at 64 images, whatever this batch has.
    """

    beta: float = BETA
    factor: float = 64.0

    def __call__(self, logits: Logits, batch: SimccBatch) -> Tensor:
        per_image = simcc_loss(logits, (batch.target_x, batch.target_y), batch.weight, self.beta)
        return self.factor * per_image.mean()


class SimccTask(nn.Module):
    """Network and loss of ``wholebody``: learning from the labels alone."""

    def __init__(self, network: SimccNet, labels: LabelLoss | None = None) -> None:
        super().__init__()
        self.network, self.labels = network, labels or LabelLoss()
        self.weights = {"keypoints": 1.0}

    def forward(self, batch: SimccBatch) -> dict[str, Tensor]:
        return self.terms(self.network, batch)

    def terms(self, network: nn.Module, batch: SimccBatch) -> dict[str, Tensor]:
        """Scalars of a batch for any network of this shape (such as the averaged one).

        ``keypoints``: the loss against the labels. To watch, both over the labelled keypoints:
        ``error_px``, mean distance in input pixels, and ``score``, mean of the smaller maximum.
        """
        return self.label_terms(network(batch.images), batch)

    def label_terms(self, logits: Logits, batch: SimccBatch) -> dict[str, Tensor]:
        """:meth:`terms` of given logits."""
        result = {"keypoints": self.labels(logits, batch)}
        with torch.no_grad():
            result.update(_figures(logits, batch, self.network.codec.split_ratio))
        return result


def _figures(logits: Logits, batch: SimccBatch, split_ratio: float) -> dict[str, Tensor]:
    peaks = [axis.max(-1) for axis in logits]
    truth = [axis.argmax(-1) for axis in (batch.target_x, batch.target_y)]
    offsets = [(peak.indices - true).float() for peak, true in zip(peaks, truth)]
    distance = torch.hypot(*offsets) / split_ratio
    score = torch.minimum(peaks[0].values, peaks[1].values).float()
    labelled = (batch.weight > 0).float()
    count = labelled.sum().clamp(min=1.0)
    return {"error_px": (distance * labelled).sum() / count,
            "score": (score * labelled).sum() / count}
