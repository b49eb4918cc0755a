"""BOP's average recalls: values by hand, matching, the command, the benchmark's own program."""

from __future__ import annotations

import dataclasses
import json
import types

import numpy as np
import pytest

from helpers import bop_plates
from kd_pose.geometry import make_pose, rotation_from_vector
from kd_pose_training import cli
from kd_pose_training.commands.bop_score import open_dataset
from kd_pose_training.data.bop_results import HEADER, BopEstimate, write_results
from kd_pose_training.evaluation import bop_score as module
from kd_pose_training.evaluation.depth_render import RayDepth, open_depth_renderer
from kd_pose_training.synthetic.render import RendererError

STILL = np.eye(4)
SHIFT = make_pose(np.eye(3), (0.01, 0, 0))


@pytest.fixture(scope="module", params=["gl", "rays"])
def renderer(request):
    try:
        return open_depth_renderer(request.param)
    except RendererError as error:
        pytest.skip(str(error))


@pytest.fixture
def rays():
    try:
        return RayDepth()
    except RendererError as error:
        pytest.skip(str(error))


def estimates(moved=STILL, only=(1, 2)):
    """The truth, moved in the camera's frame, with falling scores."""
    return [BopEstimate(2, im, obj_id, 0.9 - 0.1 * row, moved @ T, 0.5)
            for im, items in bop_plates.truths().items()
            for row, (obj_id, T, _) in enumerate(items) if obj_id in only]


def summary_of(root, found, renderer=None, targets=None, **settings):
    dataset = open_dataset(root, "test", targets)
    scores = module.score_targets(dataset, module.find_targets(dataset, found),
                                  renderer=renderer, progress=False, **settings)
    return module.summarise(scores)


def test_a_plate_is_seen_where_it_is(renderer):
    """Edges on whole numbers: with the benchmark's pixels (middle at a half) 10 x 20 are covered.
    """
    corners = np.array([[-0.05, -0.1, 0], [0.05, -0.1, 0], [-0.05, 0.1, 0], [0.05, 0.1, 0]])
    renderer.add_object(7, corners, np.array([[0, 1, 2], [1, 3, 2]]))
    camera = np.array([[100.0, 0, 50], [0, 100, 40], [0, 0, 1]])
    patch = renderer.render(7, make_pose(np.eye(3), (0, 0, 1.0)), camera, (100, 80))
    depth = np.zeros((80, 100), np.float32)
    depth[patch.window] = patch.depth
    wanted = np.zeros((80, 100), np.float32)
    wanted[30:50, 45:55] = 1.0
    assert np.allclose(depth, wanted, atol=1e-6)
    # cut by the edge, outside of the picture, behind the camera
    cut = renderer.render(7, make_pose(np.eye(3), (-0.5, 0, 1.0)), camera, (100, 80))
    assert cut.left == 0 and (cut.depth > 0).sum() == 5 * 20
    for place in ((3.0, 0, 1.0), (0, 0, -1.0)):
        assert renderer.render(7, make_pose(np.eye(3), place), camera, (100, 80)).depth.size == 0
    tilted = make_pose(rotation_from_vector((0, np.pi / 4, 0)), (0, 0, 1.0))
    depth = renderer.render(7, tilted, camera, (100, 80)).depth
    assert np.isclose(depth[depth > 0].min(), 1 - 0.05 * np.sqrt(0.5), atol=5e-3)


def test_the_truth_scores_full_marks(tmp_path, renderer):
    root = bop_plates.write_plates(tmp_path, renderer)
    summary = summary_of(root, estimates(), renderer)
    assert summary["all"] == {"targets": 4, "ar_vsd": 1.0, "ar_mssd": 1.0, "ar_mspd": 1.0,
                              "ar": 1.0, "add_recall": 1.0}
    assert summary["mean"] == summary["all"]
    assert summary["objects"]["obj_000002"]["measure"] == "ADD-S"
    assert summary["objects"]["obj_000001"]["diameter_mm"] == pytest.approx(53.8516480)


def test_a_shift_by_hand(tmp_path, rays):
    root = bop_plates.write_plates(tmp_path, rays)
    row = summary_of(root, estimates(SHIFT, only=(1,)))["objects"]["obj_000001"]
    # 10 mm are 0.186 diameters: below 0.2, 0.25 ... 0.5, which are 7 of 10.
    assert row["ar_mssd"] == pytest.approx(0.7) and row["add_recall"] == 0.0
    assert row["ar_vsd"] is None and row["ar"] is None
    # 200 px * 10 mm / 400 mm = 5 px (to 5.3 at the near corners) of 160, so 20 to 21.1 of 640:
    # below 25 ... 50, 6 of 10; at 500 mm 4 (4.2) px, so 16 to 16.8: 20 ... 50, 7 of 10.
    assert row["ar_mspd"] == pytest.approx((2 * 0.6 + 0.7) / 3)
    near = make_pose(np.eye(3), (0.005, 0, 0))  # 0.093 diameters
    row = summary_of(root, estimates(near, only=(1,)))["objects"]["obj_000001"]
    assert row["add_recall"] == 1.0 and row["ar_mssd"] == pytest.approx(0.9)


def test_vsd_of_shifted_estimates_lies_between(tmp_path, renderer):
    root = bop_plates.write_plates(tmp_path, renderer)
    some = summary_of(root, estimates(SHIFT), renderer)["all"]["ar_vsd"]
    less = summary_of(root, estimates(make_pose(np.eye(3), (0.003, 0, 0))), renderer)
    assert 0.1 < some < less["all"]["ar_vsd"] < 1.0
    far = summary_of(root, estimates(make_pose(np.eye(3), (0, 0, 0.3))), renderer)["all"]
    assert far["ar_vsd"] == far["ar_mssd"] == far["add_recall"] == 0.0


def test_a_symmetry_counts_for_the_object_that_has_it(tmp_path, renderer):
    root = bop_plates.write_plates(tmp_path, renderer)
    turn = np.reshape(bop_plates.HALF_TURN, (4, 4)).astype(float)
    turned = [BopEstimate(2, 0, obj_id, 1.0, T @ turn) for obj_id, T, _ in bop_plates.truths()[0]]
    objects = summary_of(root, turned, renderer)["objects"]
    assert objects["obj_000002"]["ar"] == objects["obj_000002"]["add_recall"] == 1.0
    assert objects["obj_000001"]["ar_mssd"] == objects["obj_000001"]["add_recall"] == 0.0
    assert objects["obj_000001"]["ar_vsd"] == pytest.approx(1 / 3)  # the same surface, 1 of 3
    other = summary_of(root, turned, add_s={1})["objects"]
    assert [row["measure"] for row in other.values()] == ["ADD-S", "ADD"]
    assert other["obj_000001"]["add_recall"] == pytest.approx(1 / 3)


def test_matching_by_hand():
    errors = np.array([[0.1, 0.2], [0.05, 0.3]])
    # 0.06: only the second, with truth 0. 0.15: the first has taken truth 0. 0.35: both.
    assert module.hits([errors], [0.06, 0.15, 0.35]).tolist() == [1, 1, 2]
    assert module.hits([errors[:1, :1]], [0.1, 0.11]).tolist() == [0, 1]  # below, not at
    assert module.hits([np.zeros((0, 2)), np.full((1, 1), np.inf)], [0.5]).tolist() == [0]
    assert module.hits([errors, errors[:1, :1]], [0.35]).tolist() == [3]


def test_targets_name_images_and_instances(tmp_path, rays):
    entry = {"scene_id": 2, "im_id": 1, "obj_id": 1, "inst_count": 1}
    root = bop_plates.write_plates(tmp_path, rays, [entry])
    dataset = open_dataset(root, "test", None)
    found = estimates(only=(1,))
    target, = module.find_targets(dataset, found)
    # The more visible of the two is the target, but the best estimate is about the other.
    assert np.allclose(target.truths[0], bop_plates.truths()[1][1][1])
    assert len(target.truths) == len(target.estimates) == 1 and target.estimates[0].score == 0.9
    assert summary_of(root, found)["all"]["add_recall"] == 0.0
    everything = summary_of(root, found, targets="none")["all"]
    assert everything["targets"] == 4 and everything["add_recall"] == 0.75


def test_command(tmp_path, rays, capsys):
    root = bop_plates.write_plates(tmp_path / "set", rays)
    path, out = tmp_path / "ours_set-test.csv", tmp_path / "score.json"
    write_results(path, estimates(SHIFT))
    arguments = ["bop-score", str(path), "--dataset", str(root)]
    assert cli.main([*arguments, "--renderer", "rays", "-o", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "obj_000002 (S)" in printed and "ADD(-S)-0.1d" in printed and "0.500 s an" in printed
    written = json.loads(out.read_text())
    assert written["images"] == 2 and written["all"]["ar_mssd"] == pytest.approx(0.7)
    deep = tmp_path / "new" / "folder" / "score.json"
    assert cli.main([*arguments, "--no-vsd", "-o", str(deep)]) == 0
    assert json.loads(deep.read_text())["images"] == 2
    capsys.readouterr()
    for wrong, text in ((path / "x.json", "cannot be written"), (deep.parent, "is a folder")):
        assert cli.main([*arguments, "--no-vsd", "-o", str(wrong)]) == 2
        printed = capsys.readouterr()
        assert f"{wrong}: {text}" in printed.err and not printed.out  # nothing was scored
    assert cli.main([*arguments, "--no-vsd"]) == 0
    assert "AR VSD" not in capsys.readouterr().out
    assert cli.main([*arguments, "--vsd-delta", "0"]) == 2
    assert cli.main([*arguments, "--split", "val"]) == 2
    assert "no such split; there are test" in capsys.readouterr().err


def test_a_missing_image_is_named(tmp_path, rays, capsys):
    root = bop_plates.write_plates(tmp_path / "set", rays)
    path = tmp_path / "ours_set-test.csv"
    write_results(path, [item for item in estimates() if item.im_id == 0])
    arguments = ["bop-score", str(path), "--dataset", str(root), "--no-vsd"]
    assert cli.main(arguments) == 2
    assert "no row for 1 of 2 target images: scene 2 image 1;" in capsys.readouterr().err
    assert cli.main([*arguments, "--allow-missing"]) == 0
    assert "50.0%" in capsys.readouterr().out  # 2 of 4 targets


def test_a_file_without_rows_scores_nothing_where_images_may_be_missing(tmp_path, rays, capsys):
    root = bop_plates.write_plates(tmp_path / "set", rays)
    path, out = tmp_path / "ours_set-test.csv", tmp_path / "score.json"
    path.write_text(f"{HEADER}\n")
    arguments = ["bop-score", str(path), "--dataset", str(root), "--renderer", "rays"]
    assert cli.main(arguments) == 2
    assert f"{path}: has no rows" in capsys.readouterr().err
    assert cli.main([*arguments, "--allow-missing", "-o", str(out)]) == 0
    printed = capsys.readouterr()
    assert f"warning: {path}: has no rows, so nothing counts as found" in printed.err
    written = json.loads(out.read_text())
    assert written["all"]["ar"] == written["all"]["add_recall"] == 0
    assert written["images_without_rows"] == 2 and written["time_per_image_s"] is None
    path.write_text("")  # cut off
    assert cli.main([*arguments, "--allow-missing"]) == 2


def test_rows_that_do_not_count_are_said(tmp_path, rays, capsys):
    root = bop_plates.write_plates(tmp_path / "set", rays)
    path, out = tmp_path / "ours_set-test.csv", tmp_path / "score.json"
    arguments = ["bop-score", str(path), "--dataset", str(root), "--no-vsd", "-o", str(out)]
    found = estimates()
    write_results(path, found)
    assert cli.main(arguments) == 0
    assert not capsys.readouterr().err and json.loads(out.read_text())["warnings"] == []
    strays = [dataclasses.replace(found[0], **{key: 99}) for key in
              ("obj_id", "im_id", "scene_id")]
    write_results(path, [*found, *strays, found[0]])
    assert cli.main(arguments) == 0
    text = (f"4 of {len(found) + 4} rows do not count: 3 of scenes, images or objects that are "
            "no target (the first: scene 2 image 0 object 99), 1 more than there are instances")
    assert f"warning: {text}" in capsys.readouterr().err
    written = json.loads(out.read_text())
    assert written["rows_without_target"] == 4 and text in written["warnings"][0]


def test_a_file_of_another_public_set_is_said(tmp_path, rays, capsys):
    root = bop_plates.write_plates(tmp_path / "lmo", rays)
    for name in ("ours_lmo-test.csv", "ours_ycbv-test.csv", "any name.csv"):
        write_results(tmp_path / "ours_lmo-test.csv", estimates())
        path = (tmp_path / "ours_lmo-test.csv").rename(tmp_path / name)
        assert cli.main(["bop-score", str(path), "--dataset", str(root), "--no-vsd",
                         "--split", "test"]) == 0
        said = f"{path}: is of the data set 'ycbv' by its name" in capsys.readouterr().err
        assert said == ("ycbv" in name)


@pytest.mark.parametrize("seed", range(3))
def test_the_benchmark_s_own_program_agrees(tmp_path, rays, seed):
    """Its errors, matching and recall, called as eval_bop19_pose.py calls them."""
    reason = "bop_toolkit_lib (github.com/thodan/bop_toolkit) is not importable"
    pose_error = pytest.importorskip("bop_toolkit_lib.pose_error", reason=reason)
    matching = pytest.importorskip("bop_toolkit_lib.pose_matching", reason=reason)
    score = pytest.importorskip("bop_toolkit_lib.score", reason=reason)
    misc = pytest.importorskip("bop_toolkit_lib.misc", reason=reason)
    rng = np.random.default_rng(seed)
    targets = [{"scene_id": 2, "im_id": im, "obj_id": obj_id, "inst_count": count}
               for im, obj_id, count in ((0, 1, 1), (0, 2, 1), (1, 1, 1 + seed % 2))]
    root = bop_plates.write_plates(tmp_path, rays, targets)
    found = [BopEstimate(2, im, obj_id, float(rng.random()), T @ make_pose(
        rotation_from_vector(size * rng.normal(size=3)), 0.1 * size * rng.normal(size=3)))
        for im, items in bop_plates.truths().items() for obj_id, T, _ in items
        for size in rng.choice([0.02, 0.1, 0.3], rng.integers(1, 3))]
    ours = summary_of(root, found, rays)["all"]
    dataset = open_dataset(root, "test", None)
    truth = {im: [{"obj_id": obj_id, "T": T, "visib_fract": share} for obj_id, T, share in items]
             for im, items in bop_plates.truths().items()}
    valid = {im: [False] * len(items) for im, items in truth.items()}
    for target in targets:
        rows = [i for i, item in enumerate(truth[target["im_id"]])
                if item["obj_id"] == target["obj_id"]]
        rows.sort(key=lambda i: -truth[target["im_id"]][i]["visib_fract"])
        for i in rows[:target["inst_count"]]:
            valid[target["im_id"]][i] = True

    def draw(obj_id, R, t, *_):
        T = make_pose(R, 1e-3 * t)
        patch, picture = rays.render(obj_id, T, bop_plates.K, bop_plates.SIZE_WH), np.zeros(
            bop_plates.SIZE_WH[::-1], np.float32)
        picture[patch.window] = patch.depth
        return {"depth": 1e3 * picture}

    stage = types.SimpleNamespace(render_object=draw)
    depths = {frame.im_id: 1e3 * frame.load_depth() for frame in dataset.frames}
    points, diameter = 1e3 * bop_plates.VERTICES, bop_plates.INFO["diameter"]
    members = {obj_id: misc.get_symmetry_transformations({"symmetries_discrete": turns}, 0.01)
               for obj_id, turns in ((1, []), (2, [bop_plates.HALF_TURN]))}

    def error(kind, obj_id, im, est, true):
        pair = est[:3, :3], 1e3 * est[:3, 3:], true[:3, :3], 1e3 * true[:3, 3:]
        if kind == "vsd":
            return pose_error.vsd(*pair, depths[im], bop_plates.K, 15, list(module.TAUS), True,
                                  diameter, stage, obj_id)
        if kind == "mssd":
            return [pose_error.mssd(*pair, points, members[obj_id]) / diameter]
        if kind == "mspd":
            return [pose_error.mspd(*pair, bop_plates.K, points, members[obj_id])
                    * 640 / bop_plates.SIZE_WH[0]]
        return [getattr(pose_error, "adi" if obj_id == 2 else "add")(*pair, points) / diameter]

    def recalls(kind, thetas):
        rows = []
        for target in targets:
            im, obj_id = target["im_id"], target["obj_id"]
            offered = sorted((item for item in found if (item.im_id, item.obj_id) == (im, obj_id)),
                             key=lambda item: -item.score)[:target["inst_count"]]
            for est_id, item in enumerate(offered):
                same = [i for i, other in enumerate(truth[im]) if other["obj_id"] == obj_id]
                rows.append({"im_id": im, "obj_id": obj_id, "est_id": est_id, "score": item.score,
                             "errors": {i: error(kind, obj_id, im, item.T_cam_obj,
                                                 truth[im][i]["T"]) for i in same},
                             "gt_visib_fracts": {i: truth[im][i]["visib_fract"] for i in same}})
        values = []
        for variant in range(len(module.TAUS) if kind == "vsd" else 1):
            single = [row | {"errors": {i: [e[variant]] for i, e in row["errors"].items()}}
                      for row in rows]
            for theta in thetas:
                matches = matching.match_poses_scene(2, truth, truth, valid, single, [theta], -1)
                values.append(score.calc_localization_scores([2], [1, 2], matches, -1,
                                                             do_print=False)["recall"])
        return float(np.mean(values))

    assert ours["ar_vsd"] == pytest.approx(recalls("vsd", module.THETAS), abs=1e-12)
    assert ours["ar_mssd"] == pytest.approx(recalls("mssd", module.THETAS), abs=1e-12)
    assert ours["ar_mspd"] == pytest.approx(recalls("mspd", module.THETAS_PX), abs=1e-12)
    assert ours["add_recall"] == pytest.approx(recalls("ad", [0.1]), abs=1e-12)
    assert 0.1 < ours["ar"] < 0.9
