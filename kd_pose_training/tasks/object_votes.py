"""Training step of the vote networks: a batch becomes named loss terms and figures to watch.

Serves both tasks: eight box corners with the 3D-space reprojection loss (object_votes) and two
corners of the image box with a smooth L1 loss (object_detector).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from kd_pose_training.config import LossConfig
from kd_pose_training.data.batch import VoteBatch
from kd_pose_training.engine.distributed import mean_over_processes
from kd_pose_training.losses.box_votes import BoxVotesLoss
from kd_pose_training.losses.focal import FocalLoss
from kd_pose_training.losses.reprojection3d import Reprojection3DLoss
from kd_pose_training.models.votenet import VoteNet

TASKS = ("object_votes", "object_detector")


@dataclass(frozen=True)
class Positives:
    """What a network says at the P positive cells of a batch.

    points: (P, K, 2) votes in input pixels. logits: (P,) of the cell's own class. instance: (P,)
    row in the batch. member: (P,) symmetry member that the vote loss has chosen. image, cell:
    (P,) where they are.
    """

    points: Tensor
    logits: Tensor
    instance: Tensor
    member: Tensor
    image: Tensor
    cell: Tensor


@dataclass(frozen=True)
class Answers:
    """A network's answers to a batch: logits (B, N, C), offsets (B, N, C, K, 2) of the votes,
    pyramid maps if asked for, positives."""

    logits: Tensor
    offsets: Tensor
    maps: list[Tensor]
    positives: Positives


class VotesTask(nn.Module):
    """Network and losses of one task.

    Args:
        network: the network to train.
        input_size: (width, height) of the images, pixels.
        task: ``object_votes`` or ``object_detector``.
    """

    def __init__(self, network: VoteNet, input_size: tuple[int, int], loss: LossConfig,
                 task: str = "object_votes") -> None:
        super().__init__()
        if task not in TASKS:
            raise ValueError(f"task is {task!r}; allowed: {', '.join(TASKS)}")
        self.network, self.task, self.config = network, task, loss
        self.weights = loss.weights
        grid = network.grid(input_size)
        self.register_buffer("centers", _tensor(grid.centers), persistent=False)
        self.register_buffer("anchors", _tensor(grid.anchors), persistent=False)
        self.focal = FocalLoss(loss.focal_gamma, loss.focal_alpha)
        self.votes = (Reprojection3DLoss if task == "object_votes" else BoxVotesLoss)(loss.knee)

    def forward(self, batch: VoteBatch) -> dict[str, Tensor]:
        return self.step(batch)

    def step(self, batch: VoteBatch) -> dict[str, Tensor]:
        """Terms ``class`` and ``vote``; the rest is for watching, see :meth:`terms`."""
        return self.terms(self.network, batch)

    def terms(self, network: nn.Module, batch: VoteBatch) -> dict[str, Tensor]:
        """Scalars of a batch for any network of this shape (such as the averaged one).

        ``class`` and ``vote``: losses. ``vote_px``: mean distance of the positive cells' votes to
        the truth in input pixels; ``vote_relative``: the same in object sizes; ``score``: mean
        score of the positive cells' own class; ``positives``: their number per image.

        Raises:
            ValueError: the batch does not fit the network's cells.
        """
        logits, offsets, maps = self.outputs(network, batch.images)
        if batch.cell_class.shape != logits.shape[:2]:
            raise ValueError(f"batch has cells {tuple(batch.cell_class.shape)}, the network "
                             f"{tuple(logits.shape[:2])}; input size or strides differ")
        image, cell = torch.nonzero(batch.cell_class >= 0, as_tuple=True)
        label = batch.cell_class[image, cell]
        instance = batch.cell_instance[image, cell]
        points = (self.centers[cell][:, None]
                  + offsets[image, cell, label].float() * self.anchors[cell][:, None, None])
        posed = batch.posed[instance]
        vote, member = self.vote_loss(points, batch, image, instance, posed)
        result = {"class": self.focal(logits, batch.cell_class) / self._scale(posed.numel(),
                                                                              logits.device),
                  "vote": vote / self._scale(posed.sum(), logits.device)}
        positives = Positives(points, logits[image, cell, label], instance, member, image, cell)
        if self.training:
            result.update(self.more_terms(batch, Answers(logits, offsets, maps, positives)))
        with torch.no_grad():
            result.update(_figures(points[posed], positives.logits, batch, instance[posed],
                                   member[posed]))
        return result

    def outputs(self, network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Logits, offsets and, where a task wants them, the pyramid maps."""
        return *network(images), []

    def more_terms(self, batch: VoteBatch, answers: Answers) -> dict[str, Tensor]:
        """Further terms of a task that does more than learn the truth; in training only, so
        that validation compares all ways of learning by the same figures."""
        return {}

    def vote_loss(self, points: Tensor, batch: VoteBatch, image: Tensor, instance: Tensor,
                  counted: Tensor) -> tuple[Tensor, Tensor]:
        """Sum over the counted (P,) of P votes (P, K, 2), and every vote's symmetry member (P,).

        Args:
            image, instance: (P,) rows of the batch.
        """
        if self.task == "object_votes":
            return self.votes(points, batch.K_crop[image], batch.points_cam, batch.diameter,
                              instance, counted)
        return self.votes(points, batch.points_px, batch.size_px, instance, counted)

    def _scale(self, positives: int | Tensor, device: torch.device) -> Tensor | float:
        """What a sum is divided by; an average over processes, so DDP changes nothing."""
        if self.config.normaliser == "sum":
            return 1.0
        count = torch.as_tensor(positives, dtype=torch.float32, device=device)
        if self.training:  # validation runs in the main process alone
            count = mean_over_processes(count)
        return count.clamp(min=1.0)


def _figures(points: Tensor, logits: Tensor, batch: VoteBatch, instance: Tensor,
             member: Tensor) -> dict[str, Tensor]:
    count = max(len(instance), 1)  # votes of instances without a pose have no figures
    distance = (points - batch.points_px[instance, member]).norm(dim=-1).mean(-1)
    size = batch.size_px.clamp(min=1.0)[instance]
    per_image = torch.tensor(len(logits) / max(len(batch.images), 1), device=points.device)
    return {"vote_px": distance.sum() / count, "vote_relative": (distance / size).sum() / count,
            "score": logits.float().sigmoid().sum() / max(len(logits), 1), "positives": per_image}


def _tensor(array: np.ndarray) -> Tensor:
    return torch.tensor(array, dtype=torch.float32)
