"""The trainer: exact resume, signals, failed saves, bad losses, averages, several processes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.train_fake import SignalAt, make_trainer
from kd_pose_training.config import OptimConfig
from kd_pose_training.data.batch import collate
from kd_pose_training.engine import checkpoint, distributed
from kd_pose_training.engine.device import choose_numerics
from kd_pose_training.engine.log import read_log
from kd_pose_training.engine.sampler import IterationSampler, part_of
from kd_pose_training.engine.schedule import AveragedWeights, build_optimizer, build_scheduler
from kd_pose_training.engine.trainer import NonFiniteLoss

torch.set_num_threads(1)
TESTS = Path(__file__).parents[1]
PROGRAM = str(TESTS / "helpers/train_fake.py")


def _losses(folder):
    return [(line["iteration"], line["total"], line["vote"], line["grad_norm"])
            for line in read_log(folder) if line["kind"] == "train"]


def _program(*arguments, launcher=(sys.executable,), **extra):
    path = os.pathsep.join([str(TESTS), str(TESTS.parent),
                            str(TESTS.parent / "ros2_ws/src/kd_pose"),
                            os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **extra}
    return subprocess.run([*launcher, PROGRAM, *map(str, arguments)], env=env, text=True,
                          capture_output=True, timeout=600)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """Losses of twelve iterations that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    make_trainer(folder).run()
    return _losses(folder)


def test_losses_go_down(whole_run):
    assert [line[0] for line in whole_run] == list(range(1, 13))
    assert np.mean([v for _, v, _, _ in whole_run[-3:]]) < 0.9 * whole_run[0][1]


def test_killed_and_resumed_is_bit_for_bit_the_same(tmp_path, whole_run):
    killed = _program(tmp_path, "--kill-at", 8)  # seven iterations done, saved at four
    assert killed.returncode == -signal.SIGKILL
    assert len(_losses(tmp_path)) == 7
    resumed = _program(tmp_path, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert _losses(tmp_path) == whole_run


def test_workers_do_not_change_the_run(tmp_path, whole_run):
    make_trainer(tmp_path, workers=2).run()
    assert _losses(tmp_path) == whole_run


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_resume_goes_on(tmp_path, whole_run, number):
    before = signal.getsignal(number)
    make_trainer(tmp_path, collate=SignalAt(6, number)).run()
    assert signal.getsignal(number) == before
    assert checkpoint.load_checkpoint(tmp_path / "last.pt")["iteration"] == 6
    trainer = make_trainer(tmp_path)
    trainer.resume(tmp_path / "last.pt")
    trainer.run()
    assert _losses(tmp_path) == whole_run


def test_an_exported_model_is_named_as_such(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"\x08\x08")
    with pytest.raises(checkpoint.CheckpointError, match=r"model\.onnx: is an exported model;"):
        checkpoint.load_checkpoint(tmp_path / "model.onnx")


def test_full_disk_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    write = torch.save
    calls = []

    def full(state, stream):
        calls.append(1)
        if len(calls) == 2:
            stream.write(b"half of it")
            raise OSError(28, "No space left on device")
        write(state, stream)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(ValueError, match="last.pt.*No space left.*untouched"):
        make_trainer(tmp_path).run()
    assert checkpoint.load_checkpoint(tmp_path / "last.pt")["iteration"] == 4
    assert not list(tmp_path.glob("*.part"))


def test_a_worker_killed_while_saving_is_no_full_disk(tmp_path, monkeypatch):
    path = tmp_path / "last.pt"
    checkpoint.save_checkpoint({"iteration": 1}, path)

    def killed(*of):
        raise RuntimeError("DataLoader worker (pid 516) is killed by signal: Killed. ")

    monkeypatch.setattr(torch, "save", killed)
    with pytest.raises(RuntimeError, match="^DataLoader worker"):
        checkpoint.save_checkpoint({"iteration": 2}, path)
    assert checkpoint.load_checkpoint(path)["iteration"] == 1
    assert [item.name for item in tmp_path.iterdir()] == ["last.pt"]


def test_nonfinite_loss_stops_with_the_batch_saved(tmp_path):
    def poisoned(samples):
        batch = collate(samples)
        poisoned.count += 1
        if poisoned.count == 6:
            batch.images[0, 0, 0, 0] = float("nan")
        return batch

    poisoned.count = 0
    trainer = make_trainer(tmp_path, collate=poisoned)
    with pytest.raises(NonFiniteLoss, match="iteration 5.*nonfinite_batch.pt"):
        trainer.run()
    assert all(p.isfinite().all() for p in trainer.task.network.parameters())
    saved = checkpoint.load_checkpoint(tmp_path / "nonfinite_batch.pt")
    assert saved["batch"]["images"].isnan().any() and len(saved["samples"]) == 4
    assert checkpoint.load_checkpoint(tmp_path / "last.pt")["iteration"] == 4


def test_validation_uses_the_average_and_keeps_the_best(tmp_path):
    scores, seen = iter([3.0, 1.0, 2.0]), []

    def validate(network):
        seen.append(network.training or any(p.requires_grad for p in network.parameters()))
        return {"total": next(scores)}

    make_trainer(tmp_path, validate=validate, validate_every=4).run()
    assert seen == [False] * 3
    assert checkpoint.load_checkpoint(tmp_path / "best.pt")["iteration"] == 8
    assert [line["total"] for line in read_log(tmp_path) if line["kind"] == "val"] == [3, 1, 2]


SHORT = {"iterations": 6, "validate_every": 2, "checkpoint_every": 5, "batch_size": 2}


class Validation:
    """Numbers that depend on the weights and on the random state; the n-th call fails."""

    def __init__(self, fails_at: int = 0) -> None:
        self.fails_at, self.calls = fails_at, 0

    def __call__(self, network):
        self.calls += 1
        drawn = float(torch.rand(()))
        if self.calls == self.fails_at:
            raise ValueError("picture.png: cannot be read")
        return {"total": float(sum(p.abs().sum() for p in network.parameters())), "drawn": drawn}


@pytest.fixture(scope="module")
def validated(tmp_path_factory):
    """A run with three validations that nothing disturbed."""
    folder = tmp_path_factory.mktemp("validated")
    make_trainer(folder, validate=Validation(), **SHORT).run()
    return folder


@pytest.mark.parametrize("fails_at, iteration", [(2, 4), (3, 6)])
def test_a_validation_that_fails_costs_no_training(tmp_path, validated, fails_at, iteration):
    """Between two checkpoints, and at the end; resuming validates first what was not."""
    with pytest.raises(ValueError, match="picture.png: cannot be read"):
        make_trainer(tmp_path, validate=Validation(fails_at), **SHORT).run()
    state = checkpoint.load_checkpoint(tmp_path / "last.pt")
    assert state["iteration"] == iteration and not checkpoint.is_finished(state)
    _resume(tmp_path)
    _assert_same_run(tmp_path, validated)


def test_killed_before_a_validation_was_saved(tmp_path, validated, monkeypatch):
    """Its line in the log and best.pt are there, last.pt is of before; it is done once more."""
    save = checkpoint.save_checkpoint

    def stops(state, path):
        if path.name == "last.pt" and state["iteration"] == 4 and not state["validation_due"]:
            raise KeyboardInterrupt
        save(state, path)

    monkeypatch.setattr(checkpoint, "save_checkpoint", stops)
    with pytest.raises(KeyboardInterrupt):
        make_trainer(tmp_path, validate=Validation(), **SHORT).run()
    monkeypatch.undo()
    assert [line["kind"] for line in read_log(tmp_path)].count("val") == 2
    _resume(tmp_path)
    _assert_same_run(tmp_path, validated)


def test_a_signal_in_the_last_iteration_leaves_its_validation(tmp_path):
    make_trainer(tmp_path, validate=Validation(), collate=SignalAt(6, signal.SIGTERM),
                 **SHORT).run()
    state = checkpoint.load_checkpoint(tmp_path / "last.pt")
    assert state["iteration"] == 6 and not checkpoint.is_finished(state)
    _resume(tmp_path)
    assert checkpoint.is_finished(checkpoint.load_checkpoint(tmp_path / "last.pt"))
    assert (tmp_path / "best.pt").exists() and len(_losses(tmp_path)) == 6


def _resume(folder):
    trainer = make_trainer(folder, validate=Validation(), **SHORT)
    trainer.resume(folder / "last.pt")
    trainer.run()


def _assert_same_run(folder, other):
    def lines(folder):
        return [{key: value for key, value in line.items() if key != "samples_per_s"}
                for line in read_log(folder)]

    assert lines(folder) == lines(other)
    for name in ("last.pt", "best.pt"):
        ours, theirs = (checkpoint.load_checkpoint(run / name) for run in (folder, other))
        for key in ("iteration", "best_score", "validation_due"):
            assert ours[key] == theirs[key]
        for key, value in theirs["network"].items():
            assert torch.equal(ours["network"][key], value)


def test_bf16_and_tensorboard_and_ema_off(tmp_path):
    make_trainer(tmp_path, precision="bf16", iterations=2, ema_decay=0.0, tensorboard=True).run()
    assert list((tmp_path / "tensorboard").iterdir())
    assert checkpoint.load_checkpoint(tmp_path / "last.pt")["average"] is None


def test_resume_refuses_what_does_not_fit(tmp_path):
    make_trainer(tmp_path, iterations=2).run()
    with pytest.raises(ValueError, match="2 iterations.*12"):
        make_trainer(tmp_path).resume(tmp_path / "last.pt")
    with pytest.raises(ValueError, match="no such"):
        make_trainer(tmp_path).resume(tmp_path / "other.pt")
    whole = (tmp_path / "last.pt").read_bytes()
    for content in (whole[:len(whole) // 2], b"", b"text"):
        (tmp_path / "cut.pt").write_bytes(content)
        with pytest.raises(ValueError, match="cut.pt"):
            checkpoint.load_checkpoint(tmp_path / "cut.pt")


def test_sampler_is_a_function_of_seed_and_iteration():
    def batches(start, stop, **more):
        return list(IterationSampler(10, 4, 7, start, stop, **more))

    whole = batches(0, 10)
    assert whole[6:] == batches(6, 10) and whole != list(IterationSampler(10, 4, 8, 0, 10))
    order = [index for batch in whole for index, _ in batch]
    for epoch in range(4):  # every epoch sees every sample once, batches span epochs
        assert sorted(order[epoch * 10:epoch * 10 + 10]) == list(range(10))
    assert len({seed for batch in whole for _, seed in batch}) == 40
    halves = [batches(0, 10, rank=rank, world=2) for rank in (0, 1)]
    assert [a + b for a, b in zip(*halves)] == whole


def test_weighed_parts_by_hand():
    """Three quarters from the second part: one of every four draws is from the first."""
    half = [part_of(i, [Fraction(1, 2), Fraction(1, 2)]) for i in range(4)]
    assert half == [(1, 0), (0, 0), (1, 1), (0, 1)]
    quarter = [part_of(i, [Fraction(1), Fraction(3)]) for i in range(8)]
    assert [part for part, _ in quarter] == [1, 1, 1, 0] * 2
    assert [draw for part, draw in quarter if part == 1] == list(range(6))
    weights = [Fraction("0.1"), Fraction("0.25"), Fraction("0.65")]
    found = [part_of(i, weights) for i in range(2000)]
    for part, share in enumerate(weights):
        draws = [draw for owner, draw in found if owner == part]
        assert draws == list(range(len(draws)))  # none left out, none twice
        assert len(draws) == 2000 * share
    far = 10**15  # exact also where a float has no fractions left
    assert [part_of(far + i, [Fraction(1), Fraction(3)])[0] for i in range(4)] == [1, 1, 1, 0]


def test_parts_of_a_training_set_are_drawn_by_weight():
    mix = ((3, 0.25), (20, 0.75))

    def batches(start, stop, **more):
        return list(IterationSampler(23, 8, 5, start, stop, mix=mix, **more))

    whole = batches(0, 40)
    assert whole[17:] == batches(17, 40)  # a pure function of seed and iteration
    halves = [batches(0, 40, rank=rank, world=2) for rank in (0, 1)]
    assert [a + b for a, b in zip(*halves)] == whole
    for batch in whole:
        assert sum(index < 3 for index, _ in batch) == 2
    order = [index for batch in whole for index, _ in batch]
    small, large = ([i for i in order if (i < 3) == first] for first in (True, False))
    for epoch in range(12):  # each part has epochs of its own
        assert sorted(small[3 * epoch:3 * epoch + 3]) == [0, 1, 2]
        assert sorted(large[20 * epoch:20 * epoch + 20]) == list(range(3, 23))
    assert len({seed for batch in whole for _, seed in batch}) == 320
    plain = list(IterationSampler(23, 8, 5, 0, 9))
    assert plain == list(IterationSampler(23, 8, 5, 0, 9, mix=((23, 7.0),)))


def test_the_trainer_draws_as_its_data_set_weighs(tmp_path):
    class Weighed:
        mix = ((4, 1.0), (20, 3.0))
        drawn: list[int] = []

        def __init__(self, data):
            self.data = data

        def __len__(self):
            return len(self.data)

        def __getitem__(self, key):
            self.drawn.append(key[0])
            return self.data[key]

    trainer = make_trainer(tmp_path, iterations=3)
    trainer.train_set = Weighed(trainer.train_set)
    trainer.run()
    assert [sum(index < 4 for index in Weighed.drawn[i:i + 4]) for i in (0, 4, 8)] == [1, 1, 1]


def test_sampler_mistakes():
    for mix in (((10, 1.0), (0, 1.0)), ((4, 1.0), (5, 1.0))):
        with pytest.raises(ValueError, match="together they must be 10"):
            IterationSampler(10, 5, 0, 0, 1, mix=mix)
    with pytest.raises(ValueError, match="empty"):
        IterationSampler(0, 4, 0, 0, 1)
    with pytest.raises(ValueError, match="batch_size 5.*2"):
        IterationSampler(10, 5, 0, 0, 1, world=2)


def test_average_by_hand():
    network = torch.nn.BatchNorm1d(1)
    average = AveragedWeights(network, 0.999)
    with torch.no_grad():
        network.weight.fill_(12.0)
        network.running_mean.fill_(11.0)
        network.num_batches_tracked.fill_(5)
    average.update(network)  # first decay 2/11
    assert float(average.network.weight) == pytest.approx(2 / 11 * 1 + 9 / 11 * 12)
    assert float(average.network.running_mean) == pytest.approx(9)
    assert int(average.network.num_batches_tracked) == 5 and not average.network.training


def test_schedule_and_decay_groups():
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    optimizer = build_optimizer(network, OptimConfig(lr=1e-2, weight_decay=0.1, warmup=0.1))
    decays = {p.ndim: group["weight_decay"] for group in optimizer.param_groups
              for p in group["params"]}
    assert decays == {4: 0.1, 1: 0.0}
    scheduler = build_scheduler(optimizer, OptimConfig(lr=1e-2, warmup=0.1), 100)
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert 8 <= int(np.argmax(rates)) <= 11 and max(rates) == pytest.approx(1e-2, rel=0.05)
    assert rates[0] == pytest.approx(1e-2 / 25) and rates[-1] < 2e-4


def test_flat_cosine_by_hand():
    optimizer = build_optimizer(torch.nn.Linear(2, 2), OptimConfig(lr=1e-2))
    config = OptimConfig(lr=1e-2, schedule="flat_cosine", warmup=0.1, flat=0.5, final_lr=0.05)
    scheduler, rates = build_scheduler(optimizer, config, 20), []
    for _ in range(21):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    # 2 iterations up, flat to 10, down over 10: half way between 1 and 0.05 after 15
    expected = {0: 1e-7, 1: 1e-2 * (1e-5 + (1 - 1e-5) / 2), 2: 1e-2, 10: 1e-2,
                15: 1e-2 * 0.525, 20: 5e-4}
    assert {place: rates[place] for place in expected} == pytest.approx(expected)
    assert rates == sorted(rates[:3]) + sorted(rates[3:], reverse=True)
    with pytest.raises(ValueError, match="flat is 0.1; allowed: 0.2 to 1.0"):
        OptimConfig(schedule="flat_cosine", warmup=0.2, flat=0.1)


def test_random_state_round_trip(tmp_path):
    checkpoint.save_checkpoint({"random": checkpoint.random_state()}, tmp_path / "r.pt")
    expected = random.random(), np.random.rand(), torch.rand(1)
    checkpoint.set_random_state(checkpoint.load_checkpoint(tmp_path / "r.pt")["random"])
    assert (random.random(), np.random.rand(), torch.rand(1)) == expected


def test_device_mistakes():
    with pytest.raises(ValueError, match="tpu9"):
        choose_numerics("tpu9", "auto", True)
    with pytest.raises(ValueError, match="fp16.*GPU"):
        choose_numerics("cpu", "fp16", True)
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no GPU"):
            choose_numerics("cuda", "auto", True)
    assert choose_numerics("cpu", "fp32", True).autocast is None


def test_incomplete_torchrun_variables_are_an_error(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="WORLD_SIZE.*RANK"):
        with distributed.process_group():
            pass


@pytest.mark.slow
def test_two_processes_train_one_network(tmp_path, whole_run):
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone",
                "--nproc-per-node", "2")
    done = _program(tmp_path, launcher=launcher)
    assert done.returncode == 0, done.stderr
    assert "parameters agree: 2 0.0" in done.stdout
    lines = _losses(tmp_path)  # one process writes; batch norm alone differs from one process
    assert len(lines) == 12
    assert lines[0][1] == pytest.approx(whole_run[0][1], rel=0.5)
