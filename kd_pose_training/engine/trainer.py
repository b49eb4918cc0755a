"""The training loop. It knows no pose: a task turns batches into named loss terms.

One iteration: batch -> terms -> weighted sum -> gradients -> clip -> AdamW -> schedule -> average.
Data order is a function of (seed, iteration) and a checkpoint holds everything else, so a run that
was killed goes on with the same losses as one that was not. The state is saved before a
validation, too: one that fails (a picture that cannot be read) costs no training, and resuming
makes up for it.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from kd_pose_training.config import OptimConfig, TrainerConfig
from kd_pose_training.engine import checkpoint as store
from kd_pose_training.engine import distributed
from kd_pose_training.engine.device import choose_numerics
from kd_pose_training.engine.loading import load_batches
from kd_pose_training.engine.log import RunLog
from kd_pose_training.engine.sampler import IterationSampler
from kd_pose_training.engine.schedule import AveragedWeights, build_optimizer, build_scheduler
from kd_pose_training.engine.signals import StopRequest

NONFINITE_NAME = "nonfinite_batch.pt"


class NonFiniteLoss(ValueError):
    """A loss or gradient became infinite or NaN; the batch was saved."""


class Task(nn.Module):
    """What the trainer needs of a task.

    ``network`` is trained. ``forward(batch)`` returns named scalars: those with a weight in
    ``weights`` are summed to the loss, the others are only logged. ``extras``: what is trained
    along and thrown away afterwards, such as adapters to a teacher's maps. ``begin(iteration,
    iterations)``, if there is one, is called before every iteration (from 0), for weights that
    change over a run. ``remark(iterations)``, if there is one, is called before validations and at
    the end, and returns what is wrong with the run, in words, or nothing.
    """

    network: nn.Module
    weights: Mapping[str, float]
    extras: nn.Module | None = None


class Trainer:
    """Trains ``task.network`` and keeps ``last.pt``, ``best.pt`` and the log in a folder.

    Args:
        task: the network and its losses.
        train_set: map-style data set whose items are asked for as ``(index, sample_seed)``; its
            ``mix``, if it has one, is that of :class:`IterationSampler`.
        collate: list of samples -> batch with ``.to(device)``.
        config, optim: see :mod:`kd_pose_training.config`.
        folder: existing output folder.
        header: plain data stored in every checkpoint (configuration, classes).
        validate: called with the averaged network, returns named numbers.
        best: name of the validated number that decides about ``best.pt``; lower is better.
        sampler: called with the arguments of :class:`IterationSampler`; for data sets with an
            order, or keys, of their own.
    """

    def __init__(self, task: Task, train_set: Dataset, collate: Callable, config: TrainerConfig,
                 optim: OptimConfig, folder: Path, *, header: dict | None = None,
                 world: distributed.World = distributed.World(), num_workers: int = 0,
                 validate: Callable[[nn.Module], Mapping[str, float]] | None = None,
                 best: str = "total",
                 sampler: Callable[..., IterationSampler] = IterationSampler) -> None:
        self.task, self.config, self.optim, self.folder = task, config, optim, Path(folder)
        self.header, self.world, self.validate, self.best = header or {}, world, validate, best
        self.train_set, self.collate, self.num_workers = train_set, collate, num_workers
        self.sampler = sampler
        self.numerics = choose_numerics(config.device, config.precision, config.channels_last,
                                        world.local_rank)
        self.device = self.numerics.device
        if config.threads:
            torch.set_num_threads(config.threads)
        task.to(device=self.device, memory_format=self.numerics.memory_format)
        self.trained = nn.ModuleList([task.network])
        if getattr(task, "extras", None) is not None:
            self.trained.append(task.extras)
        self.optimizer = build_optimizer(self.trained, optim)
        self.scheduler = build_scheduler(self.optimizer, optim, config.iterations)
        self.scaler = torch.amp.GradScaler(
            self.device.type, enabled=self.numerics.autocast == torch.float16)
        self.average = (AveragedWeights(task.network, config.ema_decay) if config.ema_decay
                        else None)
        self.iteration, self.best_score = 0, float("inf")
        self._validation_due = False
        self._random: dict | None = None
        self._wrapped: nn.Module = task

    def resume(self, path: Path) -> None:
        """Take over a checkpoint's state completely.

        Raises:
            ValueError: it belongs to another network, or to a run of another length.
        """
        state = store.load_checkpoint(path)
        if state["iterations"] != self.config.iterations:
            raise ValueError(f"{path}: is of a run of {state['iterations']} iterations, now "
                             f"trainer.iterations is {self.config.iterations}; the schedule "
                             "depends on it, so it cannot change")
        try:
            self.task.network.load_state_dict(state["network"])
            if len(self.trained) > 1:
                self.trained[1].load_state_dict(state.get("extras") or {})
            if self.average is not None:
                self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError, TypeError) as error:
            raise ValueError(f"{path}: does not fit this configuration's network: {error}"
                             ) from error
        self.scheduler.load_state_dict(state["scheduler"])
        self.scaler.load_state_dict(state["scaler"])
        self.iteration, self.best_score = state["iteration"], state["best_score"]
        self._validation_due = state.get("validation_due", False)
        states = state["random"]
        if len(states) != self.world.size:
            raise ValueError(f"{path}: was trained by {len(states)} processes, now there are "
                             f"{self.world.size}; resume with the same number")
        self._random = states[self.world.rank]

    def run(self) -> Path:
        """Train to the end (or until SIGINT/SIGTERM) and return the path of ``last.pt``.

        Raises:
            NonFiniteLoss: see there. CheckpointError: a checkpoint could not be written.
            KeyboardInterrupt: a signal came when nothing was left to be stopped here.
        """
        self._prepare()
        config, log = self.config, self._open_log()
        sampler = self.sampler(len(self.train_set), config.batch_size, config.seed,
                               self.iteration, config.iterations, self.world.rank,
                               self.world.size, getattr(self.train_set, "mix", ()))
        batches = self._batches(sampler)
        if self._random is not None:  # after the loader has been started: it draws, too
            store.set_random_state(self._random)
        stopped, meter = False, _Meter()
        try:
            with StopRequest() as stop:
                if self._validation_due:
                    self._validate(log)
                    meter.restart()
                while self.iteration < config.iterations and not stopped:
                    terms, stopped = self._step(next(batches), sampler, stop)
                    meter.add(terms)
                    self._after_step(log, meter)
                if stopped and log:
                    log.message(f"stopped by a signal at iteration {self.iteration}: saving; "
                                "continue with --resume")
                self._finish(stopped, log)
            if stop.requested and not stopped:  # what comes after the run is to stop, too
                raise KeyboardInterrupt
        finally:
            self._wrapped = self.task  # DDP would keep the process group alive past its end
            if log:
                log.close()
        return self.folder / store.LAST

    def _prepare(self) -> None:
        if self.config.compile:
            self.task.network.compile()
        if self.world.size > 1:
            ids = [self.device.index] if self.device.type == "cuda" else None
            self._wrapped = nn.parallel.DistributedDataParallel(self.task, device_ids=ids)
        self._validates = distributed.any_process((self.validate is not None,), self.device)[0]
        self._validation_due &= self._validates
        self.task.train()

    def _open_log(self) -> RunLog | None:
        if not self.world.is_main:
            return None
        log = RunLog(self.folder, self.iteration, self.config.iterations,
                     tensorboard=self.config.tensorboard, progress_bar=self.config.progress_bar,
                     drop="val" if self._validation_due else "")
        parameters = sum(p.numel() for p in self.task.network.parameters()) / 1e6
        log.message(f"{len(self.train_set)} samples, {parameters:.2f} M parameters, "
                    f"{self.numerics.description}, {self.world.size} process(es), iterations "
                    f"{self.iteration} to {self.config.iterations}")
        return log

    def _batches(self, sampler: IterationSampler) -> Iterator[Any]:
        return load_batches(
            self.train_set, sampler, self.collate, self.num_workers, self.config.seed,
            pin_memory=self.device.type == "cuda",
            prefetch_factor=4 if self.num_workers else None)

    def _step(self, batch: Any, sampler: IterationSampler,
              stop: StopRequest) -> tuple[dict[str, Tensor], bool]:
        """One iteration. Returns detached terms and whether to stop after it."""
        batch = batch.to(self.device)
        self.optimizer.zero_grad(set_to_none=True)
        if hasattr(self.task, "begin"):
            self.task.begin(self.iteration, self.config.iterations)
        with self.numerics.context():
            terms = self._wrapped(batch)
        total = sum(terms[name] * weight for name, weight in self.task.weights.items())
        self.scaler.scale(total).backward()
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.trained.parameters(),
                                        self.optim.clip_norm or float("inf"))
        terms = {key: value.detach() for key, value in terms.items()}
        terms.update(total=total.detach(), grad_norm=norm.detach())
        # An fp16 scaler expects overflowing gradients now and then and skips such steps itself.
        watched = total if self.scaler.is_enabled() else total + 0 * norm
        bad = not bool(torch.isfinite(watched.detach()))
        any_bad, stopped = distributed.any_process((bad, stop.requested), self.device)
        if any_bad:
            self._report_nonfinite(batch, terms, sampler, bad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        if self.average is not None:
            self.average.update(self.task.network)
        self.iteration += 1
        return terms, stopped

    def _after_step(self, log: RunLog | None, meter: _Meter) -> None:
        config, done = self.config, self.iteration
        last = done == config.iterations
        if log:
            log.step()
            if done % config.log_every == 0 or last:
                values = meter.take(config.batch_size)
                values["lr"] = self.optimizer.param_groups[0]["lr"]
                log.scalars(done, values)
        self._validation_due = self._validates and (last or _is_time(done, config.validate_every))
        if log and (last or self._validation_due) and hasattr(self.task, "remark"):
            log.warning(self.task.remark(config.iterations))
        if last:
            return
        if self._validation_due or _is_time(done, config.checkpoint_every):
            self._save(store.LAST)
        if self._validation_due:
            self._validate(log)
            meter.restart()

    def _finish(self, stopped: bool, log: RunLog | None) -> None:
        self._save(store.LAST)
        if self._validation_due and not stopped:
            self._validate(log)

    @torch.no_grad()
    def _validate(self, log: RunLog | None) -> None:
        """Validate the averaged network in the main process; keep the best, and the state."""
        improved = False
        if self.validate is not None and log:
            network = self.average.network if self.average is not None else self.task.network
            network.eval()
            with self.numerics.context():
                values = dict(self.validate(network))
            self.task.train()
            log.scalars(self.iteration, values, "val")
            if self.best in values and values[self.best] < self.best_score:
                self.best_score, improved = values[self.best], True
        self._validation_due = False
        if distributed.any_process((improved,), self.device)[0]:
            self._save(store.BEST)
        self._save(store.LAST)

    def _save(self, name: str) -> None:
        """Write a checkpoint in the main process; all processes take part."""
        states = distributed.gather_objects(store.random_state())
        if self.world.is_main:
            store.save_checkpoint({
                **self.header,
                "iteration": self.iteration, "iterations": self.config.iterations,
                "best_score": self.best_score, "validation_due": self._validation_due,
                "network": self.task.network.state_dict(),
                "extras": self.trained[1].state_dict() if len(self.trained) > 1 else None,
                "average": self.average.state_dict() if self.average is not None else None,
                "optimizer": self.optimizer.state_dict(),
                "scheduler": self.scheduler.state_dict(),
                "scaler": self.scaler.state_dict(),
                "random": states,
            }, self.folder / name)
        distributed.barrier()

    def _report_nonfinite(self, batch: Any, terms: Mapping[str, Tensor],
                          sampler: IterationSampler, mine: bool) -> None:
        suffix = f".rank{self.world.rank}" if self.world.size > 1 else ""
        path = self.folder / (NONFINITE_NAME + suffix)
        values = {key: float(value) for key, value in terms.items()}
        if mine:
            store.save_checkpoint({
                "iteration": self.iteration, "terms": values,
                "samples": sampler.batch(self.iteration), "batch": _plain(batch),
            }, path)
        raise NonFiniteLoss(
            f"the loss is not finite at iteration {self.iteration}: {values}; the batch was "
            f"saved to {path}. A lower optim.lr or trainer.precision=fp32 may help; the last "
            "checkpoint is from before it")


def _is_time(done: int, every: int) -> bool:
    return every > 0 and done % every == 0


def _plain(batch: Any) -> dict[str, Any]:
    items = ({f.name: getattr(batch, f.name) for f in dataclasses.fields(batch)}
             if dataclasses.is_dataclass(batch) else dict(batch))
    return {k: v.detach().cpu() if isinstance(v, Tensor) else v for k, v in items.items()}


class _Meter:
    """Averages terms between two log lines without waiting for the device."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._count = 0
        self.restart()

    def restart(self) -> None:
        """Forget the clock (after a pause), not the sums."""
        self._since, self._timed = time.perf_counter(), 0

    def add(self, terms: Mapping[str, Tensor]) -> None:
        for key, value in terms.items():
            self._sums[key] = self._sums[key] + value if key in self._sums else value.clone()
        self._count += 1
        self._timed += 1

    def take(self, batch_size: int) -> dict[str, float]:
        """Averages since the last call, and samples per second."""
        values = {key: float(total) / self._count for key, total in self._sums.items()}
        elapsed = max(time.perf_counter() - self._since, 1e-9)
        values["samples_per_s"] = self._timed * batch_size / elapsed
        self._sums, self._count = {}, 0
        self.restart()
        return values
