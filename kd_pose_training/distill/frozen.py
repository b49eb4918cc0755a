"""Modules that cannot be trained, whatever is done to what holds them."""

from __future__ import annotations

from torch import nn


class Frozen(nn.Module):
    """Base class: always in eval mode, its parameters want no gradient.

    A subclass adds its modules, then calls :meth:`freeze`.
    """

    def freeze(self) -> None:
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Frozen:
        """Stays in eval mode: batch statistics and averages must not move."""
        return super().train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Frozen:
        """Stays frozen."""
        return super().requires_grad_(False)
