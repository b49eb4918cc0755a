"""A BOP set of flat and solid boxes with rendered depth, for scores that include VSD.

Object 1: block 40 x 30 x 20 mm; object 2: the same with a half turn about z as symmetry. One scene
of 160 x 120 pixels; image 0 shows both, image 1 two of object 1.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from helpers.bop_folder import corners, write_json, write_picture
from kd_pose.geometry import make_pose, rotation_from_vector
from kd_pose_training.evaluation.depth_render import DepthRenderer

K = np.array([[200.0, 0, 79.5], [0, 200, 59.5], [0, 0, 1]])
SIZE_WH = (160, 120)
INFO = {"diameter": 53.85164807134504, "min_x": -20, "min_y": -15, "min_z": -10, "size_x": 40,
        "size_y": 30, "size_z": 20}
HALF_TURN = [-1, 0, 0, 0, 0, -1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]
FACES = np.array([[0, 2, 1], [1, 2, 3], [4, 5, 6], [5, 7, 6], [0, 1, 4], [1, 5, 4],
                  [2, 6, 3], [3, 6, 7], [0, 4, 2], [2, 4, 6], [1, 3, 5], [3, 7, 5]])
VERTICES = 1e-3 * corners(INFO)


def truths() -> dict[int, list[tuple[int, np.ndarray, float]]]:
    """Object, pose and visible share of every instance by image."""
    tilt = rotation_from_vector((0.7, -0.4, 0.3))
    return {0: [(1, make_pose(tilt, (-0.05, 0.0, 0.4)), 1.0),
                (2, make_pose(tilt.T, (0.05, 0.01, 0.45)), 0.9)],
            1: [(1, make_pose(tilt, (-0.04, -0.02, 0.4)), 0.4),
                (1, make_pose(tilt.T, (0.05, 0.0, 0.5)), 0.8)]}


def write_plates(root: Path, renderer: DepthRenderer, targets: list | None = None) -> Path:
    """Write the set (split ``test``) and return its root."""
    write_json(root / "models_eval" / "models_info.json",
               {"1": INFO, "2": INFO | {"symmetries_discrete": [HALF_TURN]}})
    lines = ["ply", "format ascii 1.0", "element vertex 8",
             *(f"property float {axis}" for axis in "xyz"), "element face 12",
             "property list uchar int vertex_indices", "end_header",
             *(" ".join(f"{value:g}" for value in point) for point in corners(INFO)),
             *(f"3 {a} {b} {c}" for a, b, c in FACES)]
    for obj_id in (1, 2):
        (root / "models_eval" / f"obj_{obj_id:06d}.ply").write_text("\n".join(lines) + "\n")
        renderer.add_object(obj_id, VERTICES, FACES)
    scene = root / "test" / "000002"
    poses = truths()
    write_json(scene / "scene_camera.json",
               {str(im): {"cam_K": K.ravel().tolist(), "depth_scale": 0.1} for im in poses})
    write_json(scene / "scene_gt.json", {str(im): [
        {"obj_id": obj_id, "cam_R_m2c": T[:3, :3].ravel().tolist(),
         "cam_t_m2c": (1e3 * T[:3, 3]).tolist()} for obj_id, T, _ in items]
        for im, items in poses.items()})
    write_json(scene / "scene_gt_info.json", {str(im): [
        {"bbox_obj": [1, 1, 9, 9], "bbox_visib": [1, 1, 9, 9], "visib_fract": share}
        for *_, share in items] for im, items in poses.items()})
    for im, items in poses.items():
        depth = np.full(SIZE_WH[::-1], 0.8, np.float32)
        for obj_id, T, _ in items:
            patch = renderer.render(obj_id, T, K, SIZE_WH)
            part = depth[patch.window]
            np.copyto(part, patch.depth, where=patch.depth > 0)
        write_picture(scene / "depth" / f"{im:06d}.png", np.rint(1e4 * depth).astype(np.uint16))
        write_picture(scene / "rgb" / f"{im:06d}.png", np.zeros((*SIZE_WH[::-1], 3), np.uint8))
    if targets is not None:
        write_json(root / "test_targets_bop19.json", targets)
    return root
