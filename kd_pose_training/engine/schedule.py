"""Optimiser, learning-rate schedule and averaged weights."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

from kd_pose_training.config import OptimConfig

WARMUP_START = 1e-5  # of the peak


def build_optimizer(network: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW; vectors (norms, biases, scales) do not decay."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=True)


def build_scheduler(optimizer: torch.optim.Optimizer, config: OptimConfig,
                    iterations: int) -> torch.optim.lr_scheduler.LRScheduler:
    """The learning rate over a run, as ``config.schedule`` says."""
    if config.schedule == "flat_cosine":
        return torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda done: flat_cosine(done, iterations, config))
    # One step more than iterations: the scheduler also steps after the last one.
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.lr, total_steps=iterations + 1, pct_start=config.warmup,
        anneal_strategy=config.anneal, cycle_momentum=False)


def flat_cosine(done: int, iterations: int, config: OptimConfig) -> float:
    """Factor on ``lr`` after ``done`` of the iterations: linear rise, flat, half a cosine down.

    The rise starts at WARMUP_START, as in the published trainings (MMPose's LinearLR).
    """
    rise = config.warmup * iterations
    if done < rise:
        return WARMUP_START + (1 - WARMUP_START) * done / rise
    first = config.flat * iterations
    if done <= first:
        return 1.0
    place = min(1.0, (done - first) / (iterations - first))
    return config.final_lr + (1 - config.final_lr) * 0.5 * (1 + math.cos(math.pi * place))


class AveragedWeights:
    """Exponential moving average of a network's parameters and floating-point buffers.

    The decay warms up as (1 + n) / (10 + n), so that the random start is forgotten quickly.
    ``network`` is a frozen copy in eval mode that can be used like the original.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.network = copy.deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Move towards the network's present weights; integer buffers are copied."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        mine, theirs = self.network.state_dict(), network.state_dict()
        floats = [key for key, value in mine.items() if value.is_floating_point()]
        torch._foreach_lerp_([mine[key] for key in floats], [theirs[key] for key in floats],
                             1 - decay)
        for key, value in mine.items():
            if not value.is_floating_point():
                value.copy_(theirs[key])

    def state_dict(self) -> dict:
        return {"updates": self.updates, "network": self.network.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        self.updates = state["updates"]
        self.network.load_state_dict(state["network"])
