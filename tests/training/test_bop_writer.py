"""Files of a rendered frame: every number against the scene, and read back by the BOP reader."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from helpers.synth_scenes import HEIGHT, WIDTH, K, at, box_mesh, object_of, renderer, scene_of
from kd_pose.manifest import ObjectSpec
from kd_pose_training.data.bop import BopDataset
from kd_pose_training.synthetic import bop_writer
from kd_pose_training.synthetic.meshes import ObjectMesh
from kd_pose_training.synthetic.scene import random_rotation

TURN = tuple(np.array([[-1, 0, 0, 0.002], [0, -1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]).ravel())


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("bop") / "set"
    block, tower = box_mesh(), box_mesh((0.05, 0.05, 0.12))
    spec = object_of(tower, 2, "tower").spec
    spec = ObjectSpec(spec.name, spec.diameter, spec.box_min, spec.box_max, (TURN,),
                      (((0.0, 0.0, 1.0), (0.001, 0.0, 0.0)),))
    objects = [object_of(block, 1, "block"), ObjectMesh(2, spec, tower)]
    rng = np.random.default_rng(2)
    scene = scene_of((block, at(0.02, 0, 0.5, random_rotation(rng))),
                     (tower, at(0, 0.01, 0.4, random_rotation(rng))),
                     (block, at(5, 0, 0.5)),                      # not in the picture
                     (block, at(0.19, 0.02, 0.5, random_rotation(rng))))  # cut off
    items = (0, 1, 0, 0)
    scene = replace(scene, things=tuple(
        replace(thing, item=item) for thing, item in zip(scene.things, items)))
    drawer = renderer("rays")
    buffers = drawer.render(scene)
    areas = [drawer.area(scene, row) for row in range(4)]
    root.mkdir()
    bop_writer.write_models(root, objects)
    folder = root / "train" / "000001"
    for name in bop_writer.FOLDERS:
        (folder / name).mkdir(parents=True)
    frame = bop_writer.write_frame(folder, 7, scene, buffers.colour, buffers, areas, objects, 95)
    bop_writer.finish_scene(folder, {7: json.loads(json.dumps(frame))}, objects)
    return root, folder, scene, buffers, areas


def load(path):
    return json.loads(path.read_text())


def test_layout_is_bops(written):
    root, folder, *_ = written
    names = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    rows = range(3)
    assert names == {
        "models/models_info.json", "models/obj_000001.ply", "models/obj_000002.ply",
        *(f"train/000001/scene_{name}.json" for name in ("camera", "gt", "gt_info", "gt_coco")),
        "train/000001/rgb/000007.jpg", "train/000001/depth/000007.png",
        "train/000001/instance_map/000007.png",
        *(f"train/000001/{kind}/000007_{row:06d}.png" for kind in ("mask", "mask_visib")
          for row in rows)}


def test_models_info_is_in_millimetres_with_symmetries(written):
    info = load(written[0] / "models" / "models_info.json")
    assert info["1"]["diameter"] == pytest.approx(np.linalg.norm([80, 60, 40]), rel=1e-6)
    assert [info["1"][key] for key in ("min_x", "min_y", "min_z", "size_x", "size_y", "size_z")] \
        == pytest.approx([-40, -30, -20, 80, 60, 40], rel=1e-6)
    assert "symmetries_discrete" not in info["1"]
    assert info["2"]["symmetries_discrete"][0][3] == pytest.approx(2.0)
    assert info["2"]["symmetries_continuous"] == [{"axis": [0, 0, 1], "offset": [1, 0, 0]}]


def test_poses_cameras_and_depth(written):
    _, folder, scene, buffers, _ = written
    camera = load(folder / "scene_camera.json")["7"]
    assert camera["cam_K"] == K.ravel().tolist()
    truths = load(folder / "scene_gt.json")["7"]
    assert [truth["obj_id"] for truth in truths] == [1, 2, 1]
    T = scene.pose(scene.objects[1])
    assert truths[1]["cam_t_m2c"] == pytest.approx((1000 * T[:3, 3]).tolist())
    assert truths[1]["cam_R_m2c"] == pytest.approx(T[:3, :3].ravel().tolist())
    raw = cv2.imread(str(folder / "depth" / "000007.png"), cv2.IMREAD_UNCHANGED)
    assert raw.dtype == np.uint16
    assert raw * camera["depth_scale"] == pytest.approx(1000 * buffers.depth, abs=0.051)


def test_visibility_is_what_counting_says(written):
    _, folder, _, buffers, areas = written
    infos = load(folder / "scene_gt_info.json")["7"]
    for info, row in zip(infos, (0, 1, 3)):
        count = int((buffers.ids == row).sum())
        assert info["px_count_visib"] == count and info["px_count_all"] == areas[row]
        assert info["visib_fract"] == pytest.approx(min(1.0, count / areas[row]))
        rows, columns = np.nonzero(buffers.ids == row)
        assert info["bbox_visib"] == [columns.min(), rows.min(), np.ptp(columns) + 1,
                                      np.ptp(rows) + 1]
    assert infos[1]["visib_fract"] == pytest.approx(1)
    assert 0 < infos[0]["visib_fract"] < 0.9  # behind the tower
    assert infos[2]["bbox_obj"][0] + infos[2]["bbox_obj"][2] > WIDTH  # reaches out of the frame
    assert 0 < infos[2]["visib_fract"] < 0.95


def test_coco_masks_decode_to_the_masks(written):
    _, folder, _, buffers, _ = written
    coco = load(folder / "scene_gt_coco.json")
    assert [item["category_id"] for item in coco["annotations"]] == [1, 2, 1]
    assert coco["images"] == [{"id": 7, "file_name": "rgb/000007.jpg", "width": WIDTH,
                               "height": HEIGHT}]
    for item, row in zip(coco["annotations"], (0, 1, 3)):
        counts = item["segmentation"]["counts"]
        flat = np.repeat(np.arange(len(counts)) % 2, counts)
        assert np.array_equal(flat.reshape(WIDTH, HEIGHT).T.astype(bool), buffers.ids == row)


def test_run_lengths_by_hand():
    assert bop_writer.mask_rle(np.array([[1, 0], [1, 1]], bool)) == {
        "counts": [0, 2, 1, 1], "size": [2, 2]}
    assert bop_writer.mask_rle(np.zeros((2, 3), bool)) == {"counts": [6], "size": [2, 3]}
    assert bop_writer.mask_box(np.zeros((4, 4), bool)) == [-1] * 4


def test_the_reader_reads_what_the_writer_wrote(written):
    root, _, scene, buffers, _ = written
    dataset = BopDataset(root, "train")
    frame = dataset.frames[0]
    assert (frame.scene_id, frame.im_id) == (1, 7)
    assert {model.name for model in dataset.models.values()} == {"block", "tower"}
    tower = dataset.models[2].spec
    assert np.array(tower.symmetries_discrete[0]) == pytest.approx(np.array(TURN))
    assert np.array(tower.symmetries_continuous[0][1]) == pytest.approx([0.001, 0, 0])
    for instance, row in zip(frame.instances, (0, 1, 3)):
        assert instance.T_cam_obj == pytest.approx(scene.pose(scene.objects[row]), abs=1e-9)
    assert frame.load_depth() == pytest.approx(buffers.depth, abs=6e-5)
    shown = frame.load_instance_map()
    for place, row in enumerate((0, 1, 3)):
        assert np.array_equal(shown == place, buffers.ids == row)
    difference = abs(frame.load_image()[..., ::-1].astype(int) - buffers.colour)
    assert difference.mean() < 2  # JPEG
