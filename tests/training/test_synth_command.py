"""synth-objects as a user runs it: the whole set, resume, workers, what it refuses."""

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import pytest

from helpers.synth_scenes import box_mesh, renderer
from kd_pose_training.cli import main
from kd_pose_training.data.bop import BopDataset
from kd_pose_training.synthetic.meshes import save_glb

SETTINGS = """
splits: {train: 6, val: 2}
frames_per_scene: 4
seed: 3
renderer: rays
workers: 1
camera: {width: 96, height: 72, fx: 90, fy: 90, cx: 47.5, cy: 35.5}
scene: {instances: [1, 3], clutter: [0, 2], distance: [0.3, 0.5], resting: 0.5}
"""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    renderer("rays")
    folder = tmp_path_factory.mktemp("synth")
    (folder / "synth.yaml").write_text(SETTINGS)
    save_glb(box_mesh(), folder / "block.glb")
    return folder / "synth.yaml", folder / "block.glb"


def run(inputs, out, *more):
    return main(["synth-objects", str(inputs[0]), "--meshes", str(inputs[1]), "-o", str(out),
                 *more])


def digest(root: Path) -> dict:
    """Every file of a set."""
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def rendered(inputs, tmp_path_factory):
    root = tmp_path_factory.mktemp("out") / "set"
    assert run(inputs, root) == 0
    return root


def test_a_set_is_whole_and_readable(rendered, capsys):
    assert len(BopDataset(rendered, "train").frames) == 6
    assert len(BopDataset(rendered, "val").frames) == 2
    assert [p.name for p in sorted((rendered / "train").iterdir())] == ["000001", "000002"]
    assert not list(rendered.rglob("*.part")) and not list(rendered.rglob("chunk_*"))
    sheet = cv2.imread(str(rendered / "sheet.jpg"))
    assert sheet is not None and sheet.std() > 10


def test_again_renders_nothing(inputs, rendered, capsys):
    before = {path: path.stat().st_mtime_ns for path in rendered.rglob("*.png")}
    assert run(inputs, rendered) == 0
    assert "0 of them new" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in rendered.rglob("*.png")}


def test_two_workers_give_the_same_files(inputs, rendered, tmp_path):
    assert run(inputs, tmp_path / "set", "--set", "workers=2") == 0
    assert digest(tmp_path / "set") == digest(rendered)


def started(inputs, out, *more):
    """The command as a process of a session of its own that has rendered a picture."""
    command = [sys.executable, "-m", "kd_pose_training.cli", "synth-objects", str(inputs[0]),
               "--meshes", str(inputs[1]), "-o", str(out), *more]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                               start_new_session=True)
    deadline = time.monotonic() + 120
    while not list(out.rglob("rgb/*.jpg")) and time.monotonic() < deadline:
        assert process.poll() is None or list(out.rglob("rgb/*.jpg"))
        time.sleep(0.002)
    return process


def test_killed_in_the_middle_it_goes_on_to_the_same_files(inputs, rendered, tmp_path):
    process = started(inputs, tmp_path / "set")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert run(inputs, tmp_path / "set") == 0
    assert digest(tmp_path / "set") == digest(rendered)


def test_sigterm_ends_its_processes_as_well(inputs, tmp_path):
    many = ("--set", "splits.train=4000", "--set", "workers=2")
    process = started(inputs, tmp_path / "set", *many)
    process.send_signal(signal.SIGTERM)  # to the first process only, as `kill` does
    assert process.wait(60) == 130
    deadline = time.monotonic() + 20
    while living(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not living(process.pid)


def living(session):
    """Is any process of a session left?"""
    try:
        os.killpg(session, 0)
    except ProcessLookupError:
        return False
    return True


def test_another_seed_is_another_set(inputs, rendered, tmp_path):
    assert run(inputs, tmp_path / "set", "--set", "seed=4", "--set", "splits={train: 2}") == 0
    name = "train/000001/rgb/000000.jpg"
    assert digest(tmp_path / "set")[name] != digest(rendered)[name]


def refused(capsys, code):
    assert code != 0
    return capsys.readouterr().err


def test_a_folder_with_another_set_is_left_alone(inputs, rendered, capsys):
    before = digest(rendered)
    message = refused(capsys, run(inputs, rendered, "--set", "seed=5"))
    assert "seed = 3" in message and str(rendered) in message
    assert digest(rendered) == before


def test_what_differs_is_named_to_the_key(inputs, rendered, tmp_path, capsys):
    message = refused(capsys, run(inputs, rendered, "--set", "camera.fx=91"))
    assert "camera.fx = 90.0, not 91.0" in message
    message = refused(capsys, run(inputs, rendered, "--set", "splits.val=3"))
    assert '"val": 2' in message and '"val": 3' in message
    save_glb(box_mesh((0.05, 0.05, 0.05)), tmp_path / "block.glb")
    message = refused(capsys, run((inputs[0], tmp_path / "block.glb"), rendered))
    assert "from other meshes" in message


def test_sets_of_versions_with_more_settings_are_known(inputs, rendered, tmp_path, capsys):
    out = tmp_path / "set"
    shutil.copytree(rendered, out)
    known = json.loads((out / "synth.json").read_text())
    known["settings"]["scene"]["given_up"] = 1
    (out / "synth.json").write_text(json.dumps(known))
    assert run(inputs, out) == 0
    assert "0 of them new" in capsys.readouterr().out


def test_a_process_that_dies_is_told(inputs, tmp_path, capsys):
    def shoot():
        deadline = time.monotonic() + 60
        while not multiprocessing.active_children() and time.monotonic() < deadline:
            time.sleep(0.01)
        multiprocessing.active_children()[0].kill()
    thread = threading.Thread(target=shoot)
    thread.start()
    code = run(inputs, tmp_path / "set", "--set", "workers=2")
    thread.join()
    assert "goes on where it was" in refused(capsys, code)


def test_a_folder_with_something_else_is_left_alone(inputs, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert "choose another folder" in refused(capsys, run(inputs, tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("more, what", [
    (("--set", "frames=3"), "frames"), (("--set", "camera.width=wide"), "width"),
    (("--set", "scene.instances=[4, 2]"), "instances"), (("--scale", "1000"), "diameter"),
    (("--set", "look.backgrounds=/nowhere/at/all"), "/nowhere/at/all"),
    (("--set", "seed=-1"), "configuration: seed is -1; allowed: 0 to 2147483647"),
    (("--set", "camera.fx=1e300"), "fx is 1e+300; allowed: above 1 to 100000 pixels"),
    (("--set", "camera.cx=-1e9"), "cx is -1000000000.0; allowed: -100000 to 100000"),
])
def test_bad_options_are_refused_before_anything_is_written(inputs, tmp_path, capsys, more, what):
    assert what in refused(capsys, run(inputs, tmp_path / "set", *more))
    assert not (tmp_path / "set").exists()


def test_a_missing_mesh_is_named(inputs, tmp_path, capsys):
    message = refused(capsys, run((inputs[0], tmp_path / "part.obj"), tmp_path / "set"))
    assert "part.obj" in message and not (tmp_path / "set").exists()
