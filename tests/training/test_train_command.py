"""``kd-pose-train train`` from the command line to a checkpoint, on made-up data."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import types
from concurrent.futures.process import BrokenProcessPool

import pytest
import torch

from helpers.fake_votes import FakeVotes
from kd_pose.manifest import ObjectSpec
from kd_pose_training import cli
from kd_pose_training.config import load_config
from kd_pose_training.engine.checkpoint import load_checkpoint, save_checkpoint
from kd_pose_training.engine.log import read_log
from kd_pose_training.models.exported_weights import restore_batch_norms
from kd_pose_training.training import objects as command

torch.set_num_threads(1)
CONFIG = """
data: {train: ['fake:train'], val: ['fake:val'], input_size: [64, 64], num_workers: 0}
model: {strides: [16, 32], head_depth: 1}
trainer: {iterations: 4, batch_size: 4, precision: fp32, device: cpu, validate_every: 2,
          checkpoint_every: 2, log_every: 1, progress_bar: false, tensorboard: false}
"""
NAMES = ("mug", "cube")


class FakeBop:
    """The parts of a BOP reader that the command uses."""

    def __init__(self, root, split, *, objects=None):
        if root != "fake":
            raise FileNotFoundError(2, "No such file or directory", root)
        self.models = {
            number: types.SimpleNamespace(name=name, spec=ObjectSpec(
                name, 0.17, (-0.05,) * 3, (0.05,) * 3))
            for number, name in enumerate(NAMES, 1) if not objects or name in objects}


@pytest.fixture
def config_path(tmp_path, monkeypatch):
    bop = types.ModuleType("kd_pose_training.data.bop")
    bop.BopDataset = FakeBop
    dataset = types.ModuleType("kd_pose_training.data.object_dataset")
    dataset.ObjectVoteDataset = lambda datasets, config, grid, train: FakeVotes(
        grid, config.model.num_keypoints, config.model.num_classes)
    monkeypatch.setitem(sys.modules, bop.__name__, bop)
    monkeypatch.setitem(sys.modules, dataset.__name__, dataset)
    path = tmp_path / "fake.yaml"
    path.write_text(CONFIG)
    return path


def _run(*arguments):
    return cli.main(["train", *map(str, arguments)])


def test_train_and_load(config_path, tmp_path, capsys):
    out = tmp_path / "runs/one"
    assert _run(config_path, "-o", out) == 0
    assert capsys.readouterr().out.strip() == str(out / "last.pt")
    assert {"last.pt", "best.pt", "config.yaml", "log.jsonl"} <= {p.name for p in out.iterdir()}
    network, config, objects = command.load_network(out / "best.pt")
    assert config.data.objects == NAMES and config.model.num_classes == 2
    assert [spec["name"] for spec in objects] == list(NAMES) and not network.training
    assert ObjectSpec(**objects[0]).diameter == 0.17
    assert load_config(out / "config.yaml") == config
    kinds = [line["kind"] for line in read_log(out)]
    assert kinds.count("train") == 4 and kinds.count("val") == 2


def test_order_of_named_objects_is_the_order_of_classes(config_path, tmp_path):
    assert _run(config_path, "-o", tmp_path / "r", "--set", "data.objects=[cube, mug]") == 0
    assert command.load_network(tmp_path / "r/last.pt")[1].data.objects == ("cube", "mug")


def test_a_student_learns_from_a_finished_run(config_path, tmp_path, capsys):
    assert _run(config_path, "-o", tmp_path / "teacher") == 0
    missing = f"distill.teacher={tmp_path}/nothing.pt"
    assert _run(config_path, "-o", tmp_path / "student", "--set", missing) != 0
    assert "nothing.pt" in capsys.readouterr().err
    settings = ["--set", f"distill.teacher={tmp_path}/teacher/last.pt",
                "--set", "distill.score_threshold=0", "--set", "distill.max_error=0"]
    assert _run(config_path, "-o", tmp_path / "student", *settings) == 0
    lines = read_log(tmp_path / "student")
    for kind, heard in (("train", True), ("val", False)):  # validated by the truth alone
        chosen = [line for line in lines if line["kind"] == kind]
        assert chosen and all(("align" in line) == heard for line in chosen)
        assert all(("teacher_used" in line) == heard for line in chosen)
    _, config, _ = command.load_network(tmp_path / "student/best.pt")
    assert config.distill.teacher.endswith("teacher/last.pt")
    assert _run(config_path, "-o", tmp_path / "student", "--resume", *settings) == 0
    assert _run(config_path, "-o", tmp_path / "student", "--resume", *settings,
                "--set", "distill.weight=1") != 0


def test_a_run_is_not_resumed_with_another_teacher_at_the_same_path(config_path, tmp_path, capsys):
    short = ("--set", "trainer.iterations=1", "--set", "trainer.validate_every=0")
    teacher, last = tmp_path / "t/last.pt", tmp_path / "s/last.pt"
    assert _run(config_path, "-o", tmp_path / "t", *short) == 0
    arguments = (config_path, "-o", tmp_path / "s", *short,
                 "--set", f"distill.teacher={teacher}", "--set", "distill.score_threshold=0")
    assert _run(*arguments) == 0
    state = load_checkpoint(teacher)
    save_checkpoint({**state, "iteration": 0}, teacher)
    assert _run(*arguments, "--resume") == 2
    error = capsys.readouterr().err
    assert "s/last.pt: the teacher's file has changed since the run was started" in error
    state = load_checkpoint(last)  # an earlier version did not know its teacher
    save_checkpoint({key: value for key, value in state.items() if key != "teacher"}, last)
    assert _run(*arguments, "--resume") == 0


def test_output_folder_in_use_is_refused_and_resumed(config_path, tmp_path, capsys):
    out = tmp_path / "run"
    assert _run(config_path, "-o", out) == 0
    before = (out / "last.pt").stat().st_mtime_ns
    assert _run(config_path, "-o", out) == 2
    assert "not empty" in capsys.readouterr().err
    assert (out / "last.pt").stat().st_mtime_ns == before
    assert _run(config_path, "-o", out, "--resume", "--set", "optim.lr=0.1") == 2
    assert "optim.lr was 0.001, now 0.1" in capsys.readouterr().err
    assert _run(config_path, "-o", out, "--resume", "--set", "trainer.log_every=2") == 0
    assert _run(config_path, "-o", tmp_path / "never", "--resume") == 2


def test_start_from_other_weights(config_path, tmp_path, capsys):
    assert _run(config_path, "-o", tmp_path / "a") == 0
    start = tmp_path / "a/last.pt"
    assert _run(config_path, "-o", tmp_path / "b", "--set", "task=object_detector",
                "--set", f"model.weights={start}") == 0
    assert _run(config_path, "-o", tmp_path / "c", "--set", f"model.weights={config_path}") == 2
    assert "fake.yaml" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()  # nothing is left of what could not begin


def test_a_run_is_resumed_without_the_weights_it_began_with(config_path, tmp_path):
    assert _run(config_path, "-o", tmp_path / "a") == 0
    start = tmp_path / "a/last.pt"
    arguments = (config_path, "-o", tmp_path / "b", "--set", f"model.weights={start}")
    assert _run(*arguments) == 0
    start.unlink()
    assert _run(*arguments, "--resume") == 0
    assert _run(*arguments[:2], tmp_path / "c", *arguments[3:]) == 2  # which a new one needs


def test_start_from_an_exported_file(config_path, tmp_path, monkeypatch):
    assert _run(config_path, "-o", tmp_path / "a") == 0
    assert cli.main(["export", str(tmp_path / "a"), "-o", str(tmp_path / "a.onnx")]) == 0
    started = []
    monkeypatch.setattr(command, "restore_batch_norms", lambda network, part, batches: (
        restore_batch_norms(network, part, batches), started.append(part)))
    assert _run(config_path, "-o", tmp_path / "b", "--set", "trainer.iterations=1",
                "--set", f"model.weights={tmp_path / 'a.onnx'}") == 0
    assert len(started) == 1
    norms = [m for m in started[0].modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms and all((m.running_var != 1).all() for m in norms)


@pytest.mark.parametrize("setting, part", [
    ("data.objects=[spoon]", "spoon"), ("optim.lrr=1", "did you mean 'lr'"),
    ("data.train=['absent:train']", "absent"), ("model.num_classes=0", "num_classes"),
    ("trainer.device=abacus", "abacus"), ("trainer.batch_size=many", "'many'"),
])
def test_mistakes_end_in_one_line(config_path, tmp_path, capsys, setting, part):
    assert _run(config_path, "-o", tmp_path / "x", "--set", setting) == 2
    error = capsys.readouterr().err.strip()
    assert part in error and "\n" not in error and "Traceback" not in error


def test_a_killed_data_worker_ends_in_one_line(config_path, tmp_path, monkeypatch, capsys):
    class Deadly(FakeVotes):
        def __getitem__(self, key):
            if torch.utils.data.get_worker_info() is not None:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().__getitem__(key)

    monkeypatch.setattr(sys.modules["kd_pose_training.data.object_dataset"], "ObjectVoteDataset",
                        lambda datasets, config, grid, train: Deadly(grid))
    assert _run(config_path, "-o", tmp_path / "x", "--set", "data.num_workers=1") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "a process was killed (DataLoader worker (pid" in error and "--resume" in error


@pytest.mark.parametrize("error, part", [
    (BrokenProcessPool("A process in the process pool was terminated abruptly"), "was killed"),
    (torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB"), "not enough memory"),
    (MemoryError(), "not enough memory (MemoryError)")])
def test_too_little_memory_ends_in_one_line(config_path, tmp_path, monkeypatch, capsys, error,
                                            part):
    def fail(*of):
        raise error

    monkeypatch.setattr("kd_pose_training.training.run.train", fail)
    assert _run(config_path, "-o", tmp_path / "x") == 2
    text = capsys.readouterr().err.strip()
    assert part in text and "fewer workers or jobs" in text and "\n" not in text


def test_an_error_of_the_program_keeps_its_traceback(config_path, tmp_path, monkeypatch):
    def fail(*of):
        raise RuntimeError("Caught RuntimeError in DataLoader worker process 0.")

    monkeypatch.setattr("kd_pose_training.training.run.train", fail)
    with pytest.raises(RuntimeError, match="Caught"):
        _run(config_path, "-o", tmp_path / "x")


def test_debug_shows_the_traceback(tmp_path):
    with pytest.raises(ValueError, match="absent.yaml"):
        cli.main(["--debug", "train", str(tmp_path / "absent.yaml"), "-o", str(tmp_path / "x")])


def test_help_is_quick_and_imports_no_torch():
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from kd_pose_training import cli\n"
         "try: cli.main(['train', '--help'])\n"
         "except SystemExit: pass\nassert 'torch' not in sys.modules"],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ":".join(sys.path)})
    assert done.returncode == 0, done.stderr
    assert "examples:" in done.stdout and "--resume" in done.stdout
