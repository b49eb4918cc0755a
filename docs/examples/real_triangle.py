"""From one mesh to poses in real pictures: the toy triangle of the M3T example data.

Renders training data for `triangle.obj`, trains a pose student and its detector on it, exports
both, then plays the two real RGB-D frames to a running object_pose node over DDS and compares the
poses that come back with `triangle_pose.txt`. Every step is the command a user would type, and a
step whose result exists is skipped, so an interrupted run goes on where it was.

    source tools/env.sh
    python docs/examples/real_triangle.py --data ../shared/data/m3t --work runs/triangle

The frames are DLR-RM/3DObjectTracking's (MIT); the pose file is that project's start pose for its
tracker, a few pixels off in the picture (see the overlay), so errors of a few millimetres are
within what the reference itself is worth.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import yaml

ROOT = Path(__file__).resolve().parents[2]
BIN = ROOT / "ros2_ws/install/kd_pose/lib/kd_pose"
FRAMES = (200, 201)
NAME = "triangle"
GREEN, DARK = (150, 200, 60), (35, 70, 5)  # of the toy in daylight, sRGB
HOLE_DISTANCE, HOLE_RADIUS, THICKNESS = 0.015, 0.0058, 0.012  # metres


def read_pose(path: Path) -> np.ndarray:
    """The 4x4 row-major pose of `triangle_pose.txt` (object body frame to camera, metres)."""
    rows = [line for line in path.read_text().splitlines() if line.count(",") >= 3]
    values = np.array([[float(v) for v in row.split(",") if v.strip()] for row in rows])
    if values.shape != (4, 4):
        raise ValueError(f"{path}: expected 4 rows of 4 numbers, found {values.shape}")
    return values


def read_cv_matrix(path: Path, key: str) -> np.ndarray:
    """A 4x4 `!!opencv-matrix` of an M3T yaml file (not readable by a plain YAML parser)."""
    text = path.read_text()
    found = re.search(key + r".*?data:\s*\[(.*?)\]", text, re.S)
    if not found:
        raise ValueError(f"{path}: no matrix {key!r}")
    return np.array([float(v) for v in found.group(1).split(",")]).reshape(4, 4)


def read_intrinsics(path: Path) -> np.ndarray:
    """The pinhole matrix K (3, 3) of an M3T camera yaml file."""
    text = path.read_text()
    value = lambda key: float(re.search(key + r":\s*([-\d.]+)", text).group(1))  # noqa: E731
    return np.array([[value("f_u"), 0, value("pp_x")], [0, value("f_v"), value("pp_y")],
                     [0, 0, 1]])


def write_real_scene(data: Path, scene: Path, models: Path) -> None:
    """Lay the two real frames out as a BOP scene, the truth being the pose file's.

    The body frame of the pose file is the mesh frame moved by `geometry2body_pose`, and BOP wants
    the mesh frame: T_cam_mesh = T_cam_body @ T_body_mesh.
    """
    K = read_intrinsics(data / "color_camera.yaml")
    T = read_pose(data / "triangle_pose.txt") @ read_cv_matrix(
        data / "triangle.yaml", "geometry2body_pose")
    (scene / "rgb").mkdir(parents=True, exist_ok=True)
    cameras, truths = {}, {}
    for number, frame in enumerate(FRAMES):
        shutil.copy(data / f"color_camera_image_{frame}.png", scene / "rgb" / f"{number:06d}.png")
        cameras[str(number)] = {"cam_K": K.ravel().tolist(), "depth_scale": 1.0}
        truths[str(number)] = [{"obj_id": 1, "cam_R_m2c": T[:3, :3].ravel().tolist(),
                                "cam_t_m2c": (T[:3, 3] * 1000).tolist()}]
    (scene / "scene_camera.json").write_text(json.dumps(cameras))
    (scene / "scene_gt.json").write_text(json.dumps(truths))
    target = scene.parent.parent / "models"
    if not target.exists():
        shutil.copytree(models, target)


def paint(source: Path, folder: Path) -> Path:
    """A textured copy of the colourless mesh, and its objects.yaml with the symmetries.

    The toy is light green with three dark holes, which the mesh does not have: they are painted on
    both faces, 15 mm from the middle towards the corners, as they measure in the pictures.
    """
    import trimesh
    from PIL import Image, ImageDraw

    folder.mkdir(parents=True, exist_ok=True)
    mesh = trimesh.load_mesh(source, process=False)
    half, size = 0.04, 512
    pixel = lambda xy: (np.asarray(xy) / half + 1) / 2 * size  # noqa: E731
    picture = Image.new("RGB", (size, size), GREEN)
    brush, radius = ImageDraw.Draw(picture), HOLE_RADIUS / half * size / 2
    for turn in np.radians([180, 300, 60]):
        u, v = pixel(HOLE_DISTANCE * np.array([np.cos(turn), np.sin(turn)]))
        brush.ellipse((u - radius, v - radius, u + radius, v + radius), DARK)
    uv = pixel(mesh.vertices[:, :2]) / size * [1, -1] + [0, 1]  # picture rows count from the top
    mesh.visual = trimesh.visual.TextureVisuals(
        uv=uv, material=trimesh.visual.material.PBRMaterial(baseColorTexture=picture))
    mesh.export(folder / "triangle.glb")
    entry = {"name": NAME, "mesh": "triangle.glb",
             "symmetries_discrete": [T.ravel().tolist() for T in symmetries()]}
    (folder / "objects.yaml").write_text(yaml.safe_dump({"objects": [entry]}))
    return folder


def symmetries() -> list[np.ndarray]:
    """The five motions besides the identity that take the triangle to itself (4x4, metres)."""
    flip = np.diag([1.0, -1.0, -1.0, 1.0])
    flip[2, 3] = THICKNESS
    motions = []
    for turn in np.radians([0, 120, 240]):
        R = np.eye(4)
        R[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
        motions += [R, R @ flip]
    return motions[1:]


def step(done: Path, *command: str | Path) -> None:
    """Run `command` unless its result `done` is there."""
    if done.exists():
        print(f"-- have {done}")
        return
    print("--", " ".join(map(str, command)), flush=True)
    subprocess.run([str(part) for part in command], check=True, cwd=ROOT)


def train_and_export(data: Path, work: Path) -> tuple[Path, Path]:
    """Render, train and export; returns the pose model and the detector."""
    rendered = work / "data"
    meshes = paint(data / "triangle.obj", work / "mesh")
    step(rendered / "sheet.jpg", "kd-pose-train", "synth-objects",
         "config/training/synth_triangle.yaml", "--meshes", meshes, "-o", rendered)
    student, detector = work / "triangle_student.onnx", work / "triangle_detector.onnx"
    if not student.exists():
        first = train("triangle_student", work)
        train("triangle_student_more", work, "--set", f"model.weights={first / 'last.pt'}")
    step(student, "kd-pose-train", "export", work / "triangle_student_more", "-o", student)
    if not detector.exists():
        train("triangle_detector", work)
    step(detector, "kd-pose-train", "export", work / "triangle_detector", "-o", detector)
    return student, detector


def train(recipe: str, work: Path, *more: str) -> Path:
    """Train a recipe on the rendered set, or go on with what was begun; returns its folder."""
    run = work / recipe
    resume = ["--resume"] if (run / "last.pt").exists() else []
    command = ["kd-pose-train", "train", f"config/training/{recipe}.yaml", "-o", str(run),
               "--set", f"data.train=['{work / 'data'}:train']",
               "--set", f"data.val=['{work / 'data'}:val']", *more, *resume]
    print("--", " ".join(command), flush=True)
    subprocess.run(command, check=True, cwd=ROOT)
    return run


def run_node(scene: Path, model: Path, detector: Path, out: Path, seconds: float = 20.0) -> dict:
    """Play the scene again and again to an object_pose node; returns the monitor's summary."""
    environment = dict(os.environ)
    environment.setdefault("ROS_DOMAIN_ID", "77")
    start = lambda name, *p: subprocess.Popen(  # noqa: E731
        [str(BIN / name), "--ros-args", *[x for q in p for x in ("-p", q)]], env=environment)
    node = start("object_pose", f"model_path:={model}", f"detector_path:={detector}",
                 "detector_score_threshold:=0.2", "score_threshold:=0.1")
    monitor = start("monitor", f"output_dir:={out}", "idle_timeout_s:=4.0", "video_rate_hz:=2.0")
    player = start("player", f"source:={scene}", "rate_hz:=2.0", "publish_truth:=true",
                   "wait_for_subscribers:=true", "loop:=true")
    try:
        time.sleep(seconds)
        player.send_signal(signal.SIGINT)
        monitor.wait(timeout=60)
    finally:
        for process in (player, node, monitor):
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        time.sleep(1.0)
    return json.loads((out / "summary.json").read_text())


def report(data: Path, model: Path, detector: Path, picture: Path) -> list[dict]:
    """Errors of the node's own estimator against the pose file, and a picture of both.

    Of every frame the estimate with the best score counts; rotations modulo the symmetries.
    White in the picture: the pose file; coloured: the estimate. Left frame 200, right 201.
    """
    import cv2

    from kd_pose.camera import Camera
    from kd_pose.drawing import draw_objects
    from kd_pose.geometry import rotation_angle_deg
    from kd_pose.object_pose import ObjectPoseEstimator, ObjectPoseOptions
    estimator = ObjectPoseEstimator(model, detector, options=ObjectPoseOptions(
        score_threshold=0.1, detector_score_threshold=0.2))
    truth = read_pose(data / "triangle_pose.txt") @ read_cv_matrix(
        data / "triangle.yaml", "geometry2body_pose")
    members = [truth @ S for S in [np.eye(4), *symmetries()]]
    rows, tiles = [], []
    for number in FRAMES:
        image = cv2.imread(str(data / f"color_camera_image_{number}.png"))
        camera = Camera(read_intrinsics(data / "color_camera.yaml"), 960, 540)
        frame = estimator.estimate(image, camera)
        drawn = draw_objects(image, frame, camera, channel_order="bgr")
        outline = camera.project(corners(data) @ truth[:3, :3].T + truth[:3, 3])
        for pair in ((0, 1), (2, 3), (4, 5), (0, 2), (2, 4), (4, 0), (1, 3), (3, 5), (5, 1)):
            a, b = (tuple(int(round(16 * v)) for v in outline[i]) for i in pair)
            cv2.line(drawn, a, b, (255, 255, 255), 1, cv2.LINE_AA, 4)
        tiles.append(cv2.resize(drawn[170:350, 280:520], None, fx=2.5, fy=2.5,
                                interpolation=cv2.INTER_CUBIC))
        if frame.objects:
            T = max(frame.objects, key=lambda item: item.score).T_cam_obj
            near = min(members, key=lambda M: rotation_angle_deg(T[:3, :3], M[:3, :3]))
            rows.append({"frame": number, "estimates": len(frame.objects),
                         "rotation_deg": rotation_angle_deg(T[:3, :3], near[:3, :3]),
                         "translation_mm": 1000 * np.abs(T[:3, 3] - near[:3, 3]).round(4)})
        else:
            rows.append({"frame": number, "estimates": 0})
    cv2.imwrite(str(picture), cv2.hconcat(tiles), [cv2.IMWRITE_JPEG_QUALITY, 90])
    return rows


def corners(data: Path) -> np.ndarray:
    """The six corners (6, 3) of triangle.obj, metres."""
    lines = (data / "triangle.obj").read_text().splitlines()
    return np.array([[float(v) for v in line.split()[1:4]] for line in lines
                     if line.startswith("v ")])


def main() -> int:
    """Run all steps and print the table."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the M3T files")
    parser.add_argument("--work", type=Path, default=Path("runs/triangle"))
    arguments = parser.parse_args()
    data, work = arguments.data.resolve(), arguments.work.resolve()
    if work.is_relative_to(ROOT):  # commands run in ROOT: short paths there
        work = work.relative_to(ROOT)
    os.chdir(ROOT)
    for name in ("triangle.obj", "triangle_pose.txt", "triangle.yaml", "color_camera.yaml"):
        if not (data / name).exists():
            parser.error(f"{data / name} is missing: --data wants the folder with the M3T frames")
    work.mkdir(parents=True, exist_ok=True)
    model, detector = train_and_export(data, work)
    scene = work / "real" / "test" / "000001"
    write_real_scene(data, scene, work / "data" / "models")
    summary = run_node(scene, model, detector, work / "result")
    print(json.dumps(summary["classes"].get(NAME), indent=2))
    for row in report(data, model, detector, work / "overlay.jpg"):
        print(row)
    print(f"look at {work / 'overlay.jpg'} and {work / 'result' / 'sheet.jpg'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
