"""BOP reader: hand-worked values, layouts of our own and of public sets, and every bad input."""

from __future__ import annotations

import json
import pickle
import shutil

import numpy as np
import pytest

from helpers import bop_folder
from helpers.bop_folder import INFO, MODELS, TRUTH, write_json, write_models, write_set
from kd_pose_training.data import bop as module
from kd_pose_training.data.bop import BopDataset, BopError
from kd_pose_training.data.bop_models import load_mesh_vertices


def edit(path, change):
    """Rewrite a JSON file by a function of its contents."""
    data = json.loads(path.read_text())
    write_json(path, change(data) or data)


def test_values_are_metres(tmp_path):
    write_set(tmp_path)
    data = BopDataset(tmp_path, "train")
    assert [(f.scene_id, f.im_id) for f in data.frames] == [(3, 0), (3, 2), (3, 10)]
    assert len(data) == 3 and data.root == tmp_path and data.split == "train"
    frame = data.frames[0]
    assert frame.K.tolist() == [[10, 0, 3.5], [0, 11, 2.5], [0, 0, 1]]
    disc, block = frame.instances
    assert (disc.obj_id, block.obj_id) == (5, 1)
    expected = [[0, -1, 0, 0.1], [1, 0, 0, -0.05], [0, 0, 1, 0.75], [0, 0, 0, 1]]
    assert block.T_cam_obj.dtype == np.float64 and np.allclose(block.T_cam_obj, expected)
    assert np.array_equal(disc.T_cam_obj[:3, 3], [0, 0, 0.8])
    # A box of pixels begins half a pixel before the centre of its first one.
    assert disc.bbox_obj.tolist() == [1.5, 0.5, 4, 3]
    assert disc.bbox_visib.tolist() == [1.5, 0.5, 3, 3]
    assert block.bbox_visib is None  # -1 in the file: nothing is visible
    assert disc.visib_fract == 0.75
    assert disc.mask_path == tmp_path / "train/000003/mask/000000_000000.png"
    assert block.mask_visib_path == tmp_path / "train/000003/mask_visib/000000_000001.png"
    assert disc.mask_path.is_file() and block.mask_visib_path.is_file()
    assert data.frames[1].instances == []


def test_models(tmp_path):
    write_set(tmp_path)
    models = BopDataset(tmp_path, "train").models
    block, disc = models[1], models[5]
    assert (block.obj_id, block.name, list(models)) == (1, "block", [1, 5])
    assert block.diameter == pytest.approx(0.05385164807)
    assert block.box_min == (-0.02, -0.015, -0.01) and block.box_max == (0.02, 0.015, 0.01)
    assert block.symmetries_discrete == block.symmetries_continuous == ()
    # Half a turn about x at half its height: z -> 4 mm - z.
    turned = np.reshape(disc.symmetries_discrete[0], (4, 4)) @ (0.01, 0.02, 0.0, 1)
    assert np.allclose(turned, (0.01, -0.02, 0.004, 1))
    assert disc.symmetries_continuous == (((0, 0, 1), (0, 0, 0.002)),)
    assert disc.spec.name == "disc" and disc.spec.box_max == (0.05, 0.05, 0.004)
    assert disc.spec.symmetries_discrete == disc.symmetries_discrete
    vertices = load_mesh_vertices(block)
    assert vertices.dtype == np.float64 and vertices.shape == (8, 3)
    assert np.allclose(vertices[[0, 7]], [block.box_min, block.box_max])


def test_pictures(tmp_path):
    write_set(tmp_path)
    frame = BopDataset(tmp_path, "train").frames[2]
    image = frame.load_image()
    assert image.shape == (6, 8, 3) and image.dtype == np.uint8
    assert image[3, 3].tolist() == [10, 100, 200]  # blue, green, red
    depth = frame.load_depth()
    assert depth.dtype == np.float32 and depth[0, 0] == 0
    assert depth[1, 1] == pytest.approx(0.75)  # 7500 units of 0.1 mm
    numbers = frame.load_instance_map()
    assert numbers.dtype == np.int16 and numbers.shape == (6, 8)
    assert (numbers[1:4, 2:5] == 0).all() and (numbers[2:6, 5:8] == 1).all()
    assert np.bincount((numbers + 1).ravel()).tolist() == [27, 9, 12]
    again = pickle.loads(pickle.dumps(frame))  # for worker processes
    assert np.array_equal(again.load_instance_map(), numbers)


@pytest.mark.parametrize("packed", [True, False])
def test_wanted_objects_only(tmp_path, packed):
    """Rows in files stay, indices follow the kept instances, others are background."""
    write_set(tmp_path, packed=packed)
    data = BopDataset(tmp_path, "train", objects=("block", "elsewhere"))
    assert list(data.models) == [1] and len(data.frames) == 3
    frame = data.frames[0]
    assert (frame.map_path is not None) == packed
    assert [(item.obj_id, item.row) for item in frame.instances] == [(1, 1)]
    numbers = frame.load_instance_map()
    assert (numbers[2:6, 5:8] == 0).all() and (numbers < 0).sum() == 48 - 12
    assert (data.frames[1].load_instance_map() == -1).all()  # nothing in this picture
    assert len(BopDataset(tmp_path, "train", objects=()).models) == 2
    with pytest.raises(BopError, match="none of the objects cup; there are block, disc"):
        BopDataset(tmp_path, "train", objects=("cup",))
    with pytest.raises(BopError, match="list of names, got 'block'"):
        BopDataset(tmp_path, "train", objects="block")


def test_packed_map_is_preferred(tmp_path):
    scene = write_set(tmp_path)
    shutil.rmtree(scene / "mask_visib")
    frame = BopDataset(tmp_path, "train").frames[0]
    assert (frame.load_instance_map() == 1).sum() == 12
    shutil.rmtree(scene / "instance_map")
    with pytest.raises(BopError, match="mask_visib/000000_000000.png: no such file"):
        BopDataset(tmp_path, "train").frames[0].load_instance_map()


def test_both_kinds_of_masks_agree(tmp_path):
    write_set(tmp_path / "a")
    write_set(tmp_path / "b", packed=False)
    pairs = zip(BopDataset(tmp_path / "a", "train").frames,
                BopDataset(tmp_path / "b", "train").frames, strict=True)
    for packed, masks in pairs:
        assert np.array_equal(packed.load_instance_map(), masks.load_instance_map())


@pytest.mark.parametrize("split, colour, models", [
    ("test", "rgb/{:06d}.png", "models"), ("train_pbr", "rgb/{:06d}.jpg", "models_eval"),
    ("train_real", "gray/{:06d}.tif", "models_cad")])
def test_public_layouts(tmp_path, split, colour, models):
    """No names, no packed maps, perhaps no scene_gt_info; several scenes."""
    write_models(tmp_path, models, names=False)
    for number in (48, 7):
        scene = tmp_path / split / f"{number:06d}"
        bop_folder.write_scene(scene, colour=colour, packed=False, info=number == 7)
    data = BopDataset(tmp_path, split, objects=("obj_000005",))
    assert data.models[5].name == "obj_000005"
    assert data.models[5].mesh_path == tmp_path / models / "obj_000005.ply"
    assert [(f.scene_id, f.im_id) for f in data.frames[2:4]] == [(7, 10), (48, 0)]
    with_info, without = (data.frames[i].instances[0] for i in (0, 3))
    assert with_info.visib_fract == 0.75
    assert without.visib_fract == 1.0 and without.bbox_obj is without.bbox_visib is None
    frame = data.frames[3]
    assert frame.image_path.name == colour[-10:].format(0)
    image = frame.load_image()
    assert image.shape == (6, 8, 3) and image.dtype == np.uint8
    assert np.abs(image[3, 3].astype(int) - ([100] * 3 if "gray" in colour else (0, 100, 200))
                  ).max() <= 3
    assert (frame.load_instance_map() == 0).sum() == 9


def test_meshes_in_another_folder(tmp_path):
    write_set(tmp_path)
    (tmp_path / "models_eval").mkdir()
    (tmp_path / "models/obj_000001.ply").rename(tmp_path / "models_eval/obj_000001.ply")
    assert len(load_mesh_vertices(BopDataset(tmp_path, "train").models[1])) == 8


def test_targets(tmp_path):
    """Only the listed images are frames, and only their pictures must be there."""
    scene = write_set(tmp_path)
    bop_folder.write_scene(tmp_path / "train/000009")
    name = "test_targets_bop19.json"
    write_json(tmp_path / name, [{"im_id": 10, "inst_count": 1, "obj_id": 5, "scene_id": 3},
                                 {"im_id": 10, "inst_count": 1, "obj_id": 1, "scene_id": 3}])
    (scene / "rgb/000000.png").unlink()
    data = BopDataset(tmp_path, "train", targets=name)
    assert [(f.scene_id, f.im_id) for f in data.frames] == [(3, 10)]
    assert [item.visib_fract for item in data.frames[0].instances] == [0.75, 1.0]
    for scene_id, im_id, message in ((4, 0, f"{name}: scene 4 is not in"),
                                     (3, 5, "scene_gt.json: scene 3: image 5")):
        write_json(tmp_path / name, [{"scene_id": scene_id, "im_id": im_id}])
        with pytest.raises(BopError, match=message):
            BopDataset(tmp_path, "train", targets=name)
    write_json(tmp_path / name, [{"scene_id": 3}])
    with pytest.raises(BopError, match=f"{name}: entry 0: key 'im_id' is missing"):
        BopDataset(tmp_path, "train", targets=name)
    write_json(tmp_path / name, {})
    with pytest.raises(BopError, match=f"{name}: must hold a list, holds dict"):
        BopDataset(tmp_path, "train", targets=name)


def test_a_split_without_the_listed_images(tmp_path):
    """``@!``: what a file names is left out, so that it can be tested on."""
    write_set(tmp_path)
    bop_folder.write_scene(tmp_path / "train/000009")
    name = "test_targets_bop19.json"
    write_json(tmp_path / name, [{"im_id": 10, "inst_count": 2, "obj_id": 5, "scene_id": 3},
                                 {"im_id": 0, "inst_count": 1, "obj_id": 1, "scene_id": 3}])

    def frames(split):
        return [(f.scene_id, f.im_id) for f in BopDataset(tmp_path, split).frames]

    assert frames(f"train@{name}") == [(3, 0), (3, 10)]
    assert frames(f"train@!{name}") == [(3, 2), (9, 0), (9, 2), (9, 10)]
    assert frames("train") == sorted(frames(f"train@{name}") + frames(f"train@!{name}"))
    data = BopDataset(tmp_path, f"train@{name}")
    assert data.targets == {(3, 10): {5: 2}, (3, 0): {1: 1}}
    assert BopDataset(tmp_path, f"train@!{name}").targets == {}
    assert BopDataset(tmp_path, "train").targets == {}
    with pytest.raises(BopError, match="after '@' the name of a targets file"):
        BopDataset(tmp_path, "train@")
    with pytest.raises(BopError, match=r"other.json: no such file"):
        BopDataset(tmp_path, "train@!other.json")
    write_json(tmp_path / name, [{"im_id": 0, "obj_id": 1, "scene_id": 3}] * 2)
    with pytest.raises(BopError, match="entry 1: object 1 of scene 3, image 0 is already"):
        BopDataset(tmp_path, f"train@{name}")


def test_the_evaluation_models_can_be_preferred(tmp_path):
    write_set(tmp_path)
    bop_folder.write_models(tmp_path, "models_eval", names=False)
    data = BopDataset(tmp_path, "train", models="models_eval")
    assert data.models[1].name == "obj_000001"
    assert data.models[1].mesh_path.parent.name == "models_eval"
    assert BopDataset(tmp_path, "train").models[1].name == "block"
    assert BopDataset(tmp_path, "train", models="models_fine").models[1].name == "block"


def test_opening_reads_no_picture(tmp_path, monkeypatch):
    write_set(tmp_path)

    def fail(*arguments):
        raise AssertionError("a picture was read")

    monkeypatch.setattr(module.bop_files, "read_picture", fail)
    data = BopDataset(tmp_path, "train")
    with pytest.raises(AssertionError):
        data.frames[0].load_image()


def test_feeds_the_sample_maker(tmp_path):
    pytest.importorskip("torch")
    from kd_pose.votes import VoteGrid
    from kd_pose_training.config import AugmentConfig, DataConfig, TrainConfig
    from kd_pose_training.data.object_dataset import ObjectVoteDataset
    write_set(tmp_path)
    entry = f"{tmp_path}:train"
    config = TrainConfig(data=DataConfig(train=(entry,), input_size=(64, 64)),
                         augment=AugmentConfig())
    samples = ObjectVoteDataset([BopDataset(tmp_path, "train")], config,
                                VoteGrid((64, 64), (8, 16)), False, progress=False)
    assert [item.spec.name for item in samples.classes] == ["block", "disc"]
    assert len(samples) == 4
    batch = samples[0]
    assert batch.images.shape == (1, 3, 64, 64) and (batch.cell_class >= 0).any()


# --- bad input ---------------------------------------------------------------------------------


def with_instance(**changes):
    """Change of scene_gt: the second instance of image 10; None removes a key."""
    def change(data):
        item = dict(data["10"][1], **changes)
        data["10"][1] = {key: value for key, value in item.items() if value is not None}
    return change


def with_entry(number, **changes):
    """Change of an entry of models_info or scene_camera; None removes a key."""
    def change(data):
        item = dict(data[number], **changes)
        data[number] = {key: value for key, value in item.items() if value is not None}
    return change


def with_info(**changes):
    def change(data):
        data["10"][1] = {**data["10"][1], **changes}
    return change


GT, CAM = "train/000003/scene_gt.json", "train/000003/scene_camera.json"
GT_INFO, MODELS_INFO = "train/000003/scene_gt_info.json", "models/models_info.json"
PLACE = "scene 3, image 10, instance 1"
SKEWED = [1, 0.1, 0, 0, 1, 0, 0, 0, 1]
MIRRORED = [-1, 0, 0, 0, 1, 0, 0, 0, 1]
IN_METRES = [{**item, "cam_t_m2c": [v / 1000 for v in item["cam_t_m2c"]]} for item in TRUTH]


@pytest.mark.parametrize("file, change, message", [
    (GT, with_instance(cam_t_m2c=None), f"{PLACE}: key 'cam_t_m2c' is missing"),
    (GT, with_instance(cam_t_m2c=[1, 2]), f"{PLACE}: key 'cam_t_m2c' must be 3 finite"),
    (GT, with_instance(cam_t_m2c=[0, 0, float("nan")]), f"{PLACE}: key 'cam_t_m2c'"),
    (GT, with_instance(cam_R_m2c=SKEWED), f"{PLACE}: key 'cam_R_m2c' is no rotation"),
    (GT, with_instance(cam_R_m2c=MIRRORED), f"{PLACE}: key 'cam_R_m2c' is no rotation.*-1"),
    (GT, with_instance(obj_id=9), f"{PLACE}: key 'obj_id': 9 is not in .*, which has 1, 5"),
    (GT, with_instance(obj_id="block"), f"{PLACE}: key 'obj_id' must be .*'block'"),
    (GT, lambda data: {"2": [], "10": IN_METRES}, "'cam_t_m2c' must be in millimetres"),
    (GT, lambda data: {"first": []}, "key 'first' is not a number"),
    (GT, lambda data: {"2": {}}, "key '2' must be a list"),
    (GT, lambda data: {"2": ["x"]}, "image 2, instance 0: key 'obj_id' is missing"),
    (GT, lambda data: {**data, "11": []}, "scene 3, image 11: is missing, scene_gt.json has it"),
    (CAM, with_entry("10", cam_K=None), "scene 3, image 10: key 'cam_K' is missing"),
    (CAM, with_entry("10", cam_K=[0.0] * 9), "scene 3, image 10: key 'cam_K'.*positive"),
    (CAM, with_entry("10", cam_K=[5, 0, 3, 0, -5, 2, 0, 0, 1]), "image 10: key 'cam_K'"),
    (CAM, with_entry("10", depth_scale="mm"), "image 10: key 'depth_scale' must be"),
    (GT_INFO, lambda data: {**data, "10": INFO[:1]}, "image 10: 1 entries, scene_gt.json has 2"),
    (GT_INFO, with_info(visib_fract=75), f"{PLACE}: key 'visib_fract' must be 0 to 1, got 75"),
    (GT_INFO, with_info(bbox_visib=[1, 2, 3]), f"{PLACE}: key 'bbox_visib' must be 4"),
    (MODELS_INFO, with_entry("5", diameter=None), "object 5: key 'diameter' is missing"),
    (MODELS_INFO, with_entry("5", diameter=0.1), "object 5: key 'diameter' .* millimetres.*0.1"),
    (MODELS_INFO, with_entry("5", diameter=1e5), "object 5: key 'diameter' .* millimetres"),
    (MODELS_INFO, with_entry("5", min_z=None), "object 5: key 'min_z' is missing"),
    (MODELS_INFO, with_entry("5", size_x=2000), "object 5: keys 'size_x'.*diameter 100"),
    (MODELS_INFO, with_entry("5", name=""), "object 5: key 'name' must be a text"),
    (MODELS_INFO, with_entry("5", name="block"), "objects 1 and 5: same key 'name', 'block'"),
    (MODELS_INFO, with_entry("5", symmetries_discrete=[[1, 2]]),
     "object 5, entry 0: key 'symmetries_discrete' must be 16"),
    (MODELS_INFO, with_entry("5", symmetries_discrete=[np.diag([2, 2, 2, 1]).ravel().tolist()]),
     r"object 5, entry 0: key 'symmetries_discrete' must be a rigid motion .* got \[2, 0, 0"),
    (MODELS_INFO, with_entry("5", symmetries_discrete=[np.diag([1, 1, -1, 1]).ravel().tolist()]),
     "entry 0: key 'symmetries_discrete' must be a rigid motion"),
    (MODELS_INFO, with_entry("5", symmetries_discrete=[[*np.eye(4).ravel()[:12], 3, 0, 0, 1]]),
     "entry 0: key 'symmetries_discrete' must be a rigid motion"),
    (MODELS_INFO, with_entry("5", symmetries_discrete=3), "'symmetries_discrete' must be a list"),
    (MODELS_INFO, with_entry("5", symmetries_continuous=[{"axis": [0, 0, 1]}]),
     "object 5: key 'symmetries_continuous', entry 0: key 'offset' is missing"),
    (MODELS_INFO, with_entry("5", symmetries_continuous=[{"axis": [0] * 3, "offset": [0] * 3}]),
     "entry 0: key 'axis' must not be zero"),
])
def test_wrong_keys_are_named(tmp_path, file, change, message):
    write_set(tmp_path)
    edit(tmp_path / file, change)
    with pytest.raises(BopError, match=message) as error:
        BopDataset(tmp_path, "train")
    name = "scene_camera.json" if "image 11" in message else file
    assert str(error.value).startswith(str(tmp_path)) and name in str(error.value)


@pytest.mark.parametrize("file", [GT, CAM, GT_INFO, MODELS_INFO])
def test_broken_json_is_named(tmp_path, file):
    path = tmp_path / file
    write_set(tmp_path)
    whole = path.read_bytes()
    for data, message in ((whole[:-9], "truncated, or not JSON"), (b"", "truncated"),
                          (b"\xff\xfe\x00", "truncated"), (b"[]", "must hold an object")):
        path.write_bytes(data)
        with pytest.raises(BopError, match=f"{path}: {message}"):
            BopDataset(tmp_path, "train")
    path.unlink()
    if file != GT_INFO:  # which public sets may lack
        with pytest.raises(BopError, match=f"{path}: no such file"):
            BopDataset(tmp_path, "train")


def test_missing_folders(tmp_path):
    with pytest.raises(BopError, match="nowhere: no such folder"):
        BopDataset(tmp_path / "nowhere", "train")
    with pytest.raises(BopError, match="no such split; the folder has none"):
        BopDataset(tmp_path, "train")
    write_set(tmp_path)
    bop_folder.write_scene(tmp_path / "val/000001")
    with pytest.raises(BopError, match="test: no such split; there are train, val"):
        BopDataset(tmp_path, "test")
    with pytest.raises(BopError, match="models: has no scenes; there are train, val"):
        BopDataset(tmp_path, "models")
    with pytest.raises(BopError, match="no such split; there are train, val"):
        BopDataset(tmp_path, "")


def test_bad_pictures(tmp_path):
    scene = write_set(tmp_path, packed=False)
    frame = BopDataset(tmp_path, "train").frames[0]
    whole = frame.image_path.read_bytes()
    for data in (b"not a picture", whole[:len(whole) // 2]):
        frame.image_path.write_bytes(data)
        with pytest.raises(BopError, match=f"{frame.image_path}: cannot be decoded; truncated"):
            frame.load_image()
    frame.image_path.write_bytes(b"")
    with pytest.raises(BopError, match="cannot be decoded.*0 bytes"):
        frame.load_image()
    frame.image_path.unlink()
    with pytest.raises(BopError, match=f"{frame.image_path}: no such file"):
        frame.load_image()
    with pytest.raises(BopError, match="rgb/000000.png: no such file"):
        BopDataset(tmp_path, "train")
    bop_folder.write_picture(frame.instances[1].mask_visib_path, np.zeros((3, 4), np.uint8))
    with pytest.raises(BopError, match="000000_000001.png: is 4x3, the others are 8x6"):
        frame.load_instance_map()
    bop_folder.write_picture(frame.depth_path, np.zeros((6, 8, 3), np.uint8))
    with pytest.raises(BopError, match=f"{frame.depth_path}: depth must have one channel, has 3"):
        frame.load_depth()
    shutil.rmtree(scene / "depth")
    bop_folder.write_picture(frame.image_path, np.zeros((6, 8, 3), np.uint8))
    with pytest.raises(BopError, match="depth/000000.png: no such file"):
        BopDataset(tmp_path, "train").frames[0].load_depth()


def test_depth_needs_its_unit(tmp_path):
    write_set(tmp_path)
    edit(tmp_path / CAM, with_entry("10", depth_scale=None))
    with pytest.raises(BopError, match="scene 3, image 10: key 'depth_scale' is missing"):
        BopDataset(tmp_path, "train").frames[2].load_depth()


def test_bad_packed_maps(tmp_path):
    write_set(tmp_path)
    frame = BopDataset(tmp_path, "train").frames[0]
    bop_folder.write_picture(frame.map_path, np.full((6, 8), 2, np.uint8))
    with pytest.raises(BopError, match=f"{frame.map_path}: has value 2, .* has 2 instance"):
        frame.load_instance_map()
    bop_folder.write_picture(frame.map_path, np.zeros((6, 8), np.uint16))
    with pytest.raises(BopError, match=f"{frame.map_path}: must be 8-bit"):
        frame.load_instance_map()


def test_bad_meshes(tmp_path):
    write_set(tmp_path)
    model = BopDataset(tmp_path, "train").models[1]
    size = bop_folder.corners(MODELS["1"])
    for scale in (0.001, 1000):
        bop_folder.write_ply(model.mesh_path, scale * size)
        with pytest.raises(BopError, match=f"{model.mesh_path}: .* must be in millimetres"):
            load_mesh_vertices(model)
    model.mesh_path.write_bytes(b"ply\nformat ascii 1.0\nelement vertex 8\n")
    with pytest.raises(BopError, match=f"{model.mesh_path}: "):
        load_mesh_vertices(model)
    model.mesh_path.unlink()
    with pytest.raises(BopError, match=f"{model.mesh_path}: no such file"):
        load_mesh_vertices(model)
