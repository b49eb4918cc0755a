"""Feature distillation for detectors: attention-guided and non-local (FKD).

Zhang & Ma, "Improve Object Detection with Feature-based Knowledge Distillation: Towards Accurate
and Efficient Detectors", ICLR 2021. With A a map (C, H, W) of the student (brought to the
teacher's width) or the teacher:

    spatial attention  s(A) = mean over C of |A|            channel attention  c(A) = mean of |A|
    masks              Ms = HW softmax((s(S) + s(T)) / t),  Mc = C softmax((c(S) + c(T)) / t)
    attention          |s(S) - s(T)| + |c(S) - c(T)|
    masked             (mean of (S - T)^2 Ms Mc)^(1/2)
    relation           |r(S) - r(T)|, r(A)_i = sum over j of softmax_j(A_i A_j / C^(1/2)) A_j

Two choices differ from the published code. All norms are root mean squares per image over maps in
units of the teacher's mean activation in that image, so that weights mean the same for any batch,
map size and teacher. The relation has no weights of its own: trainable ones on the teacher's side
would let the target shrink to what is easy.
"""

from __future__ import annotations

import torch
from torch import Tensor

_TINY = 1e-8


def feature_terms(student: Tensor, teacher: Tensor, temperature: float = 0.5
                  ) -> tuple[Tensor, Tensor, Tensor]:
    """``attention``, ``masked`` and ``relation``, scalars in float32: means over the images.

    Args:
        student, teacher: (B, C, H, W) of one level; gradients reach the student.
        temperature: of the masks.

    Raises:
        ValueError: the shapes differ.
    """
    if student.shape != teacher.shape or student.ndim != 4:
        raise ValueError(f"student and teacher must be (B, C, H, W) alike, got "
                         f"{tuple(student.shape)} and {tuple(teacher.shape)}")
    # Inside autocast the products of the relation would be rounded to half precision.
    with torch.autocast(student.device.type, enabled=False):
        return _terms(student.float(), teacher.detach().float(), temperature)


def _terms(student: Tensor, teacher: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    unit = teacher.abs().mean((1, 2, 3), keepdim=True).clamp(min=_TINY)
    student, teacher = student / unit, teacher / unit
    spatial = [x.abs().mean(1).flatten(1) for x in (student, teacher)]
    channel = [x.abs().mean((2, 3)) for x in (student, teacher)]
    attention = (_root_mean(spatial[0] - spatial[1]) + _root_mean(channel[0] - channel[1])).mean()
    # The masks only say where to look: nothing is learnt by moving them.
    where = _mask(spatial, temperature).reshape(len(student), 1, *student.shape[2:])
    which = _mask(channel, temperature)[:, :, None, None]
    masked = _root_mean((student - teacher) * (where * which).sqrt()).mean()
    related = _root_mean(relations(student) - relations(teacher)).mean()
    return attention, masked, related


def _mask(pair: list[Tensor], temperature: float) -> Tensor:
    """(B, n), mean 1 along n."""
    total = (pair[0] + pair[1]).detach()
    return torch.softmax(total / temperature, 1) * total.shape[1]


def relations(maps: Tensor) -> Tensor:
    """What every place sees of the others: (B, C, H, W) -> (B, HW, C)."""
    x = maps.flatten(2).transpose(1, 2)
    weights = torch.softmax(x @ x.transpose(1, 2) / x.shape[2] ** 0.5, 2)
    return weights @ x


def _root_mean(x: Tensor) -> Tensor:
    """(B, ...) -> (B,)."""
    return (x.square().flatten(1).mean(1) + _TINY).sqrt()
