"""A tiny training run as a program of its own, so that tests can kill it or torchrun it."""

from __future__ import annotations

import argparse
import os
import signal
from pathlib import Path

import torch

from helpers.fake_votes import FakeVotes
from kd_pose_training.config import LossConfig, ModelConfig, OptimConfig, TrainerConfig
from kd_pose_training.data.batch import collate
from kd_pose_training.engine import distributed
from kd_pose_training.engine.checkpoint import LAST
from kd_pose_training.engine.trainer import Trainer
from kd_pose_training.models import build_model
from kd_pose_training.tasks.object_votes import VotesTask

SIZE = (64, 64)


def make_trainer(folder: Path, *, collate=collate, world=distributed.World(), workers: int = 0,
                 validate=None, iterations: int = 12, length: int = 24, lr: float = 1e-3,
                 batch_size: int = 4, precision: str = "fp32", **settings) -> Trainer:
    """Trainer of a two-class network on made-up 64x64 crops."""
    torch.manual_seed(0)
    network = build_model(ModelConfig("darknet_tiny_h", (16, 32), head_depth=1, num_classes=2,
                                      num_keypoints=8))
    task = VotesTask(network, SIZE, LossConfig())
    config = TrainerConfig(**{
        "iterations": iterations, "batch_size": batch_size, "precision": precision,
        "device": "cpu", "log_every": 1, "checkpoint_every": 4, "validate_every": 0,
        "progress_bar": False, "tensorboard": False, **settings})
    return Trainer(task, FakeVotes(network.grid(SIZE), length=length), collate, config,
                   OptimConfig(lr=lr), folder, world=world, num_workers=workers,
                   validate=validate, header={"config": {"name": "fake"}})


class SignalAt:
    """Collate function that sends a signal to its own process at the n-th batch it makes."""

    def __init__(self, count: int, number: int) -> None:
        self.count, self.number = count, number

    def __call__(self, samples):
        self.count -= 1
        if self.count == 0:
            os.kill(os.getpid(), self.number)
        return collate(samples)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kill-at", type=int, default=0)
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with distributed.process_group("cpu") as world:
        function = SignalAt(options.kill_at, signal.SIGKILL) if options.kill_at else collate
        trainer = make_trainer(options.folder, collate=function, world=world)
        if options.resume:
            trainer.resume(options.folder / LAST)
        trainer.run()
        total = sum(float(p.detach().double().sum()) for p in trainer.task.parameters())
        sums = distributed.gather_objects(total)
        if world.is_main:
            print("parameters agree:", len(sums), max(sums) - min(sums))


if __name__ == "__main__":
    main()
