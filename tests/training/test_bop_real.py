"""One real LINEMOD frame, laid out as the public set is: does its pose lie on its picture?

Skipped where ``../shared/data/linemod_cat`` is not there.
"""

from pathlib import Path

import cv2
import numpy as np
import pytest

from helpers.bop_folder import write_json, write_picture
from kd_pose.geometry import box_corners, transform_points
from kd_pose_training.data.bop import BopDataset

CAT = Path(__file__).parents[3] / "shared" / "data" / "linemod_cat"
K = [572.4114, 0.0, 325.2611, 0.0, 573.57043, 242.04899, 0.0, 0.0, 1.0]


@pytest.fixture
def linemod(tmp_path):
    if not CAT.is_dir():
        pytest.skip(f"{CAT} is not there")
    corners = 1000 * np.loadtxt(CAT / "cat_bb8_3d.txt")
    low, size = corners.min(axis=0), np.ptp(corners, axis=0)
    info = {"diameter": 154.54551808906483}
    for axis, name in enumerate("xyz"):
        info |= {f"min_{name}": low[axis], f"size_{name}": size[axis]}
    write_json(tmp_path / "models" / "models_info.json", {"6": info})
    T = np.load(CAT / "cat_pose.npy")
    scene = tmp_path / "test" / "000006"
    write_json(scene / "scene_camera.json", {"0": {"cam_K": K, "depth_scale": 1.0}})
    write_json(scene / "scene_gt.json", {"0": [{
        "obj_id": 6, "cam_R_m2c": T[:, :3].ravel().tolist(),
        "cam_t_m2c": (1000 * T[:, 3]).tolist()}]})
    write_picture(scene / "rgb" / "000000.png", cv2.imread(str(CAT / "cat.jpg")))
    mask = cv2.imread(str(CAT / "cat_mask.png"), cv2.IMREAD_GRAYSCALE)
    write_picture(scene / "mask_visib" / "000000_000000.png", mask)
    return tmp_path


def test_a_real_linemod_frame_fits_its_pose(linemod):
    data = BopDataset(linemod, "test")
    frame = data.frames[0]
    assert frame.load_image().shape == (480, 640, 3)
    spec = data.models[6].spec
    assert spec.name == "obj_000006"
    instance = frame.instances[0]
    assert instance.visib_fract == 1.0 and instance.bbox_obj is None  # no scene_gt_info.json
    shown = frame.load_instance_map() == 0
    rows, columns = np.nonzero(shown)
    camera = transform_points(instance.T_cam_obj, box_corners(spec.box_min, spec.box_max))
    pixels = camera @ frame.K.T
    pixels = pixels[:, :2] / pixels[:, 2:]
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    # The cat is inside of its projected box, fills most of it, and its middle is in the cat's.
    assert low[0] - 2 < columns.min() and columns.max() < high[0] + 2
    assert low[1] - 2 < rows.min() and rows.max() < high[1] + 2
    seen = (np.ptp(columns) + 1) * (np.ptp(rows) + 1)
    assert seen > 0.5 * np.prod(high - low)
    points = np.loadtxt(CAT / "cat_points_3d.txt")
    pixels = transform_points(instance.T_cam_obj, points) @ frame.K.T
    pixels = np.rint(pixels[:, :2] / pixels[:, 2:]).astype(int)
    grown = cv2.dilate(shown.astype(np.uint8), np.ones((7, 7)))
    assert grown[pixels[:, 1], pixels[:, 0]].all()  # the surface's far points are on the cat
