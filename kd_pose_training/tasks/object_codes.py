"""Training step of the dense networks: a batch becomes named loss terms and figures to watch.

Of a crop only the class of its object is looked at: its mask everywhere, its codes where the
object is visible. What the network says of other classes there is never asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kd_pose.codes import COARSE_BITS
from kd_pose_training.config import CodesConfig
from kd_pose_training.data.code_batch import CodeBatch
from kd_pose_training.engine.distributed import mean_over_processes
from kd_pose_training.losses.codes import (
    bit_weights,
    code_bits,
    code_loss,
    mask_loss,
    update_running_error,
    wrong_bits,
)
from kd_pose_training.models.codenet import CodeNet


@dataclass(frozen=True)
class CodeAnswers:
    """What a network says of the objects of B crops, and the truth as bits.

    masks: (B, h, w) and codes: (B, bits, h, w), logits of the crop's own class. bits: (B, bits,
    h, w) bool. coded: (B, h, w) bool, pixels whose code is known. maps: the backbone's, if asked
    for.
    """

    masks: Tensor
    codes: Tensor
    bits: Tensor
    coded: Tensor
    maps: Sequence[Tensor] = ()


class CodesTask(nn.Module):
    """Network and losses of ``object_codes``."""

    def __init__(self, network: CodeNet, codes: CodesConfig) -> None:
        super().__init__()
        self.network, self.config, self.weights = network, codes, codes.weights

    def forward(self, batch: CodeBatch) -> dict[str, Tensor]:
        return self.terms(self.network, batch)

    def terms(self, network: nn.Module, batch: CodeBatch) -> dict[str, Tensor]:
        """Scalars of a batch for any network of this shape (such as the averaged one).

        ``mask`` and ``code``: losses; in validation all bits weigh alike, so that its numbers of
        different times compare. ``mask_iou``: overlap of the masks at ½; ``bit_error``: share of
        wrong bits; ``coarse_error``: the same of the bits that decoding weighs a pixel by.

        Raises:
            ValueError: the batch does not fit the network's output.
        """
        answers = self.answers(network, batch)
        result = {"mask": mask_loss(answers.masks, batch.mask),
                  "code": self._code_loss(network, answers)}
        if self.training:
            result.update(self.more_terms(batch, answers))
        with torch.no_grad():
            result.update(_figures(answers, batch.mask))
        return result

    def more_terms(self, batch: CodeBatch, answers: CodeAnswers) -> dict[str, Tensor]:
        """Further terms of a task that does more than learn the truth; in training only."""
        return {}

    def outputs(self, network: nn.Module,
                images: Tensor) -> tuple[Tensor, Tensor, Sequence[Tensor]]:
        """Logits of masks and codes of all classes and, where a task wants them, the maps."""
        return *network(images), ()

    def answers(self, network: nn.Module, batch: CodeBatch) -> CodeAnswers:
        """The network's answers for each crop's own class."""
        masks, codes, maps = self.outputs(network, batch.images)
        if masks.shape[2:] != batch.mask.shape[1:]:
            raise ValueError(f"batch has targets of {tuple(batch.mask.shape[1:])} pixels, the "
                             f"network gives {tuple(masks.shape[2:])}")
        rows = torch.arange(len(batch.label), device=masks.device)
        return CodeAnswers(masks[rows, batch.label], codes[rows, batch.label],
                           code_bits(batch.codes, codes.shape[2]), batch.codes >= 0, maps)

    def _code_loss(self, network: nn.Module, answers: CodeAnswers) -> Tensor:
        counted, pixels = answers.coded, None
        if self.config.code_mask == "predicted":
            counted = answers.masks.detach() > 0
            pixels = float(counted.numel())
        if not self.training:
            weights = torch.ones(answers.codes.shape[1], device=counted.device)
            return code_loss(answers.codes, answers.bits, counted, weights, pixels)
        wrong = mean_over_processes(wrong_bits(answers.codes, answers.bits, counted))
        number = mean_over_processes(counted.sum().float())
        update_running_error(network.bit_error, wrong, number)
        return code_loss(answers.codes, answers.bits, counted, bit_weights(network.bit_error),
                         pixels)


def _figures(answers: CodeAnswers, mask: Tensor) -> dict[str, Tensor]:
    found = answers.masks > 0
    union = (found | mask).sum().clamp(min=1)
    pixels = answers.coded.sum().clamp(min=1)
    error = wrong_bits(answers.codes, answers.bits, answers.coded) / pixels
    return {"mask_iou": (found & mask).sum() / union, "bit_error": error.mean(),
            "coarse_error": error[:COARSE_BITS].mean()}
