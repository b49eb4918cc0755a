"""Jobs in processes of their own, and what becomes of them at a signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures.process import BrokenProcessPool

import pytest

from helpers.interruptible import job
from helpers.train_fake import make_trainer
from kd_pose_training.engine import checkpoint, signals
from kd_pose_training.engine.processes import in_processes


def test_all_results_come():
    assert sorted(in_processes(job, [(number,) for number in (0, 1, 2)], 2)) == [0, 1, 2]


def test_an_error_is_that_of_the_job():
    with pytest.raises(ValueError, match="^3 is not allowed$") as info:
        list(in_processes(job, [(3,), (0,)], 1))
    assert "in the process of a job" in str(info.value.__cause__)


def test_who_sends_a_large_result_is_no_reason_to_wait_for_ever():
    results = in_processes(job, [(5,), (5,)], 2)
    try:
        assert len(next(results)) == 1_000_000
        time.sleep(3.0)  # the other one has begun to send, and nobody reads
    finally:
        ending = threading.Thread(target=results.close, daemon=True)
        ending.start()
        ending.join(20.0)
    assert not ending.is_alive()


def test_a_killed_process_is_told():
    with pytest.raises(BrokenProcessPool, match="ended with -9") as info:
        list(in_processes(job, [(4,)], 2))
    assert signals.is_of_killed_process(info.value)


@pytest.mark.parametrize("send, number", [
    (os.killpg, signal.SIGINT), (os.kill, signal.SIGINT), (os.killpg, signal.SIGTERM),
    (os.kill, signal.SIGTERM)], ids=["INT-all", "INT-first", "TERM-all", "TERM-first"])
def test_a_signal_stops_all_and_begins_nothing(tmp_path, send, number):
    """A terminal's Ctrl-C and ``timeout`` reach all processes, ``kill`` the first one only."""
    process = subprocess.Popen(
        [sys.executable, "-m", "helpers.interruptible", str(tmp_path)], stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("*.begun"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    send(process.pid, number)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130, errors
    assert errors == b""
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "0.begun", "0.saved", "1.begun", "1.saved"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_deferred_signal_takes_effect_at_the_end(number):
    reached = []
    with pytest.raises(KeyboardInterrupt), signals.terminate_like_interrupt():
        before = signal.getsignal(number)
        with signals.deferred():
            try:
                os.kill(os.getpid(), number)
                time.sleep(0.01)
            except BaseException:  # as trimesh does around its optional imports
                reached.append("swallowed")
            reached.append("end")
        reached.append("beyond")
    assert reached == ["end"]
    assert number == signal.SIGTERM or signal.getsignal(number) is before


def test_a_signal_while_a_finished_run_is_validated_is_not_lost(tmp_path):
    def validate(network):
        os.kill(os.getpid(), signal.SIGINT)
        return {"total": 1.0}

    with pytest.raises(KeyboardInterrupt):
        make_trainer(tmp_path, validate=validate).run()
    assert checkpoint.is_finished(checkpoint.load_checkpoint(tmp_path / "last.pt"))


def test_trimesh_is_loaded_whole_before_a_signal_is_heard():
    """Some of its parts do without what cannot be imported, whatever the reason."""
    program = ("import builtins, os, signal, sys\n"
               "whole = builtins.__import__\n"
               "def import_(name, *rest, **more):\n"
               "    if name == 'trimesh' or name.startswith('trimesh.'):\n"
               "        os.kill(os.getpid(), signal.SIGINT)\n"
               "    return whole(name, *rest, **more)\n"
               "from kd_pose_training.data.bop_models import import_trimesh\n"
               "builtins.__import__ = import_\n"
               "try:\n"
               "    import_trimesh()\n"
               "except KeyboardInterrupt:\n"
               "    sys.exit(7 if hasattr(sys.modules.get('trimesh'), 'Trimesh') else 8)\n")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                          preexec_fn=lambda: signal.signal(signal.SIGINT,
                                                           signal.default_int_handler))
    assert done.returncode == 7, done.stderr
