"""What a download lacks is said, with the archive that holds it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from helpers import bop_folder
from helpers.bop_folder import write_json, write_scene, write_set
from kd_pose_training import cli
from kd_pose_training.data.bop_files import BopError
from kd_pose_training.data.check_bop import archives_of, check_set
from kd_pose_training.data.public_sets import PUBLIC_SETS, PublicSet, PublicSplit

TINY = PublicSet("tiny", "Tiny", (1, 5), (5,), ("camera.json",), {
    "test": PublicSplit(("tiny_test_all.zip", "tiny_test_bop19.zip"), (3,)),
    "train_pbr": PublicSplit(("tiny_train_pbr.zip",), (0, 1)),
    "train_synt": PublicSplit(("tiny_train_synt.zip",), (0,), optional=True)})
TARGETS = [{"scene_id": 3, "im_id": 10, "obj_id": 5, "inst_count": 1},
           {"scene_id": 3, "im_id": 0, "obj_id": 1, "inst_count": 1}]


@pytest.fixture
def root(tmp_path):
    """A whole set of that kind."""
    root = tmp_path / "tiny"
    write_set(root, "test", packed=False)
    bop_folder.write_models(root, "models_eval")
    for scene in ("000000", "000001"):
        write_scene(root / "train_pbr" / scene, colour="rgb/{:06d}.jpg", packed=False)
    write_json(root / "camera.json", {"fx": 10})
    write_json(root / "test_targets_bop19.json", TARGETS)
    return root


def problems(root, **settings):
    parts = check_set(root, TINY, **settings)
    return [(part.name, problem.text.replace(f"{root}/", ""), problem.archives)
            for part in parts for problem in part.problems]


def test_a_whole_set(root):
    parts = {part.name: part for part in check_set(root, TINY)}
    assert not problems(root) and not archives_of(list(parts.values()))
    assert parts["models"].summary == parts["models_eval"].summary == "2 objects"
    assert parts["targets"].summary == "2 instances in 2 images"
    # 3 pictures, 3 depths, 4 masks; in training depth is not needed: 6 pictures, 8 masks
    assert parts["test"].summary == "1 scenes, 3 images, 10 pictures decoded"
    assert parts["train_pbr"].summary == "2 scenes, 6 images, 14 pictures decoded"
    assert parts["train_synt"].state == "absent" and parts["test"].state == "ok"


def remove(root, name):
    path = root / name
    if path.is_dir():
        for item in path.iterdir():
            item.unlink()
        path.rmdir()
    else:
        path.unlink()


BASE, MODELS = ("tiny_base.zip",), ("tiny_models.zip",)
TEST, PBR = TINY.splits["test"].archives, ("tiny_train_pbr.zip",)


@pytest.mark.parametrize("name, part, text, archives", [
    ("camera.json", "camera", "camera.json: no such file", BASE),
    ("test_targets_bop19.json", "targets", "test_targets_bop19.json: no such file", BASE),
    ("models/models_info.json", "models", "models/models_info.json: no such file", MODELS),
    ("models_eval/obj_000005.ply", "models_eval", "1 of 2 meshes: models_eval/obj_000005.ply",
     MODELS),
    ("train_pbr/000001/scene_gt.json", "train_pbr", "scene_gt.json: no such file", PBR),
    ("train_pbr/000000/rgb/000002.jpg", "train_pbr",
     "train_pbr/000000/rgb: 1 of 3 pictures are not there: image 2", PBR),
    ("train_pbr/000000/mask_visib/000010_000001.png", "train_pbr",
     "mask_visib: 1 of 4 masks are not there: 000010_000001.png", PBR),
    ("test/000003/depth", "test", "depth: 3 of 3 pictures are not there: image 0, 2, 10", TEST),
    ("test/000003/scene_gt_info.json", "test", "scene_gt_info.json: no such file", TEST),
])
def test_a_missing_file_is_named_with_its_archive(root, name, part, text, archives):
    remove(root, name)
    assert any(found == part and text in message and source == archives
               for found, message, source in problems(root)), problems(root)


def test_a_missing_target_image_is_said_of_the_targets(root):
    remove(root, "test/000003/rgb/000010.png")
    found = {part: (text, source) for part, text, source in problems(root)}
    assert found["targets"] == ("test: 1 of 2 target images are not there: scene 3 image 10", TEST)
    assert "image 10" in found["test"][0]


def test_missing_scenes_splits_and_entries(root):
    for item in sorted((root / "train_pbr/000001").rglob("*"), reverse=True):
        item.unlink() if item.is_file() else item.rmdir()
    (root / "train_pbr/000001").rmdir()
    cameras = json.loads((root / "test/000003/scene_camera.json").read_text())
    cameras.pop("10")
    write_json(root / "test/000003/scene_camera.json", cameras)
    info = json.loads((root / "models/models_info.json").read_text())
    info.pop("5")
    write_json(root / "models/models_info.json", info)
    texts = " ".join(text for _, text, _ in problems(root))
    assert "train_pbr: 1 of 2 scenes are not there: 000001" in texts
    assert "scene_camera.json: lacks 1 of 3 images of scene_gt.json: 10" in texts
    assert "models_info.json: has no object 5" in texts
    (root / "test").rename(root / "elsewhere")
    assert ("test", "test: no such folder", TEST) in problems(root)
    assert [part for part, *_ in problems(root, splits=["train_pbr"])].count("test") == 0
    with pytest.raises(BopError, match="no split val; there are test, train_pbr"):
        check_set(root, TINY, splits=["val"])


def test_broken_pictures_among_the_sampled_ones_are_named(root):
    path = root / "test/000003/rgb/000002.png"
    path.write_bytes(path.read_bytes()[:30])
    (part, text, source), = problems(root)
    assert part == "test" and "rgb/000002.png: cannot be decoded" in text and source == TEST
    assert not problems(root, samples=0)
    assert not problems(root, samples=1)  # the first one is whole


def without(entry, key):
    return lambda data: data[entry].pop(key)


@pytest.mark.parametrize("name, change, part, text, archives", [
    ("models/models_info.json", without("5", "diameter"), "models",
     "models/models_info.json: object 5: key 'diameter' is missing", MODELS),
    ("models_eval/models_info.json", lambda data: data["5"].update(name="block"), "models_eval",
     "models_eval/models_info.json: objects 1 and 5: same key 'name', 'block'", MODELS),
    ("train_pbr/000001/scene_camera.json", without("2", "cam_K"), "train_pbr",
     "train_pbr/000001/scene_camera.json: scene 1, image 2: key 'cam_K' is missing", PBR),
    ("test/000003/scene_gt.json", lambda data: data["10"][1].update(obj_id=77), "test",
     "test/000003/scene_gt.json: scene 3, image 10, instance 1: key 'obj_id': 77 is not in "
     "models_info.json, which has 1, 5", TEST),
    ("test/000003/scene_gt_info.json", lambda data: data["10"].pop(), "test",
     "test/000003/scene_gt_info.json: scene 3, image 10: 1 entries, scene_gt.json has 2", TEST),
])
def test_values_that_training_refuses_are_named(root, name, change, part, text, archives):
    data = json.loads((root / name).read_text())
    change(data)
    write_json(root / name, data)
    assert problems(root) == [(part, text, archives)]
    assert cli.main(["check-data", str(root)]) == 2


def test_broken_meshes_are_all_named(root):
    (root / "models/obj_000001.ply").write_text("rubbish")
    bop_folder.write_ply(root / "models/obj_000005.ply",
                         1e-3 * bop_folder.corners(bop_folder.MODELS["5"]))  # metres
    first, second = problems(root)
    assert first[0] == second[0] == "models" and first[2] == second[2] == MODELS
    assert "models/obj_000001.ply: not a readable mesh" in first[1]
    assert "models/obj_000005.ply: the mesh is 0.1 mm long" in second[1]


def test_other_sets_are_checked_against_their_own_files(tmp_path):
    write_set(tmp_path, "train")
    parts = {part.name: part for part in check_set(tmp_path, None)}
    assert not any(part.problems for part in parts.values()) and parts["train"].state == "ok"
    remove(tmp_path, "train/000003/rgb/000010.png")
    parts = {part.name: part for part in check_set(tmp_path, None)}
    assert parts["train"].state == "MISSING"
    remove(tmp_path, "models/models_info.json")
    assert check_set(tmp_path, None)[1].problems
    for public, name, text in ((None, "absent", "absent: no such folder"),
                               (TINY, "models/obj_000001.ply", "obj_000001.ply: not a folder")):
        with pytest.raises(BopError, match=text):
            check_set(tmp_path / name, public)


def test_of_a_set_whose_folder_is_absent_everything_is_missing(tmp_path):
    parts = check_set(tmp_path / "absent", TINY)
    assert {part.name: part.state for part in parts} == {
        "camera": "MISSING", "models": "MISSING", "models_eval": "MISSING", "targets": "MISSING",
        "test": "MISSING", "train_pbr": "MISSING", "train_synt": "absent"}
    assert archives_of(parts) == [BASE, MODELS, TEST, PBR]


def test_command(root, tmp_path, capsys, monkeypatch):
    assert cli.main(["check-data", str(root)]) == 0
    assert "complete" in capsys.readouterr().out
    root.rename(tmp_path / "lm")
    assert cli.main(["check-data", "lm", "--root", str(tmp_path)]) == 2
    printed = capsys.readouterr().out
    assert "LINEMOD" in printed and "has no object 2, 3, 4 ..." in printed
    assert ("https://huggingface.co/datasets/bop-benchmark/lm/resolve/main/lm_train_pbr.zip"
            in printed)
    assert "lm_test_all.zip\n" in printed and "lm_train.zip" not in printed
    assert "lm_test_bop19.zip" not in printed  # it has no pictures to learn from
    assert cli.main(["check-data", "lm", "--root", str(tmp_path), "--splits", "test"]) == 2
    assert "lm_test_all.zip or lm_test_bop19.zip" in capsys.readouterr().out
    assert cli.main(["check-data", "ycbv", "--root", str(tmp_path)]) == 2
    printed = capsys.readouterr().out
    assert f"unpacked into {tmp_path / 'ycbv'} (ycbv_base.zip: beside it):" in printed
    assert all(f"ycbv_{name}.zip\n" in printed for name in ("base", "models", "train_real"))
    assert cli.main(["check-data", str(tmp_path / "lm"), "--samples", "-1"]) == 2


def test_a_set_that_learns_from_another_needs_it(root, capsys, monkeypatch):
    monkeypatch.setitem(PUBLIC_SETS, TINY.name, replace(TINY, learns_from="lm"))
    assert cli.main(["check-data", str(root)]) == 2
    printed = capsys.readouterr().out
    beside = root.parent / "lm"
    assert f"{beside}: LINEMOD, which is learnt from" in printed and "complete" not in printed
    assert f"unpacked into {beside} (lm_base.zip: beside it):" in printed
    for name in ("lm_base", "lm_models", "lm_test_all", "lm_train_pbr"):
        assert f"  {name}.zip\n" in printed
    assert "tiny_" not in printed
    assert cli.main(["check-data", str(root), "--splits", "test"]) == 0
    assert "complete" in capsys.readouterr().out


def test_pictures_that_are_tested_on_are_not_learnt_from(root):
    test = replace(TINY.splits["test"], learnt="tiny_test_all.zip")
    public = replace(TINY, splits={**TINY.splits, "test": test})
    assert not archives_of(check_set(root, public))
    write_json(root / "test_targets_bop19.json",
               [{**TARGETS[0], "im_id": image} for image in (0, 2, 10)])
    assert archives_of(check_set(root, public)) == [("tiny_test_all.zip",)]
    assert not archives_of(check_set(root, public, splits=["test"]))
    text, = [problem.text for part in check_set(root, public) for problem in part.problems]
    assert "test: has no images but those of test_targets_bop19.json" in text


def test_the_facts_of_the_public_sets():
    lm, lmo, ycbv = (PUBLIC_SETS[name] for name in ("lm", "lmo", "ycbv"))
    assert len(lm.objects) == 15 and lmo.objects == (1, 5, 6, 8, 9, 10, 11, 12)
    assert set(lmo.objects) <= set(lm.objects) and len(ycbv.objects) == 21
    assert lmo.learns_from == "lm" and lm.splits["test"].learnt in lm.splits["test"].archives
    assert set(lmo.add_s) == set(lm.add_s) & set(lmo.objects)
    assert len(ycbv.splits["train_real"].scenes) == 80 and lmo.splits["test"].scenes == (2,)
    assert not set(ycbv.splits["test"].scenes) & set(ycbv.splits["train_real"].scenes)
    params = pytest.importorskip("bop_toolkit_lib.dataset_params",
                                 reason="bop_toolkit_lib is not there")
    for item in (lm, lmo, ycbv):
        theirs = params.get_model_params("", item.name)
        assert list(item.objects) == theirs["obj_ids"]
        assert list(item.add_s) == theirs["symmetric_obj_ids"]
        assert list(item.splits["test"].scenes) == params.get_split_params(
            "", item.name, "test")["scene_ids"]
    assert list(ycbv.splits["train_real"].scenes) == params.get_split_params(
        "", "ycbv", "train", "real")["scene_ids"]
