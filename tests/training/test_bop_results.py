"""BOP results files: round trip, and every way in which one can be wrong."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from kd_pose.geometry import make_pose, rotation_from_vector
from kd_pose_training.data import bop_results
from kd_pose_training.data.bop_files import BopError
from kd_pose_training.data.bop_results import (
    BopEstimate,
    missing_images,
    parse_name,
    read_results,
    write_results,
)

ROW = "2,3,5,0.5,1 0 0 0 1 0 0 0 1,10 20.5 800,0.25"


def estimates():
    rng = np.random.default_rng(0)
    return [BopEstimate(2, image, 5 + row, float(rng.random()),
                        make_pose(rotation_from_vector(rng.normal(size=3)), rng.normal(size=3)),
                        0.1 * image) for image in (3, 4) for row in range(2)]


def test_a_row_by_hand(tmp_path):
    path = tmp_path / "ours_lmo-test.csv"
    path.write_text(f"{bop_results.HEADER}\n{ROW}\n")
    item, = read_results(path)
    assert (item.scene_id, item.im_id, item.obj_id, item.score, item.time) == (2, 3, 5, 0.5, 0.25)
    assert np.allclose(item.T_cam_obj, make_pose(np.eye(3), (0.01, 0.0205, 0.8)))
    path.write_text(ROW)  # the header may be absent
    assert len(read_results(path)) == 1


def test_round_trip_is_exact_and_the_toolkit_accepts_the_file(tmp_path):
    path, wanted = tmp_path / "ours_lmo-test.csv", estimates()
    write_results(path, wanted)
    assert path.read_text().startswith("scene_id,im_id,obj_id,score,R,t,time\n2,3,5,")
    assert not list(tmp_path.glob("*.part"))
    for mine, found in zip(wanted, read_results(path)):
        assert np.allclose(mine.T_cam_obj, found.T_cam_obj, rtol=0, atol=1e-15)
        assert dataclasses.replace(mine, T_cam_obj=None) == dataclasses.replace(found,
                                                                                T_cam_obj=None)
    inout = pytest.importorskip("bop_toolkit_lib.inout", reason="bop_toolkit_lib is not there")
    assert inout.check_bop_results(str(path)) == (True, "OK")
    theirs = inout.load_bop_results(str(path))
    assert np.allclose(theirs[0]["t"].ravel(), 1e3 * wanted[0].T_cam_obj[:3, 3], atol=1e-12)
    assert inout.parse_result_filename(str(path))[1:5] == ("ours", "lmo", "test", None)


def test_names():
    assert parse_name("runs/ours_lmo-test.csv") == ("ours", "lmo", "test")
    assert parse_name("my-method_tless-test-primesense_run2.csv") == (
        "my-method", "tless", "test_primesense")
    for wrong in ("kd_pose_lmo-test.csv", "ours.csv", "ours_lmo.csv", "v1.2_lmo-test.csv",
                  "ours_lmo-test.txt"):
        with pytest.raises(BopError, match="METHOD_DATASET-SPLIT.csv"):
            parse_name(wrong)


@pytest.mark.parametrize("line, message", [
    ("2,3,5,0.5,1 0 0 0 1 0 0 0 1,10 20 800", "line 2: has 6 parts"),
    (ROW.replace("0 0 0 1 0 0 0 1,", "0 0 0 1 0 0 0,"), "line 2: R must be 9 finite"),
    (ROW.replace("10 20.5 800", "10 20.5"), "line 2: t must be 3 finite"),
    (ROW.replace("20.5", "nan"), "line 2: t must be 3 finite"),
    (ROW.replace("0.5,", "high,", 1), "line 2: score must be 1 finite"),
    (ROW.replace("2,3,5", "2,3.5,5"), "line 2: scene_id, im_id and obj_id"),
    (ROW.replace("1 0 0 0 1", "2 0 0 0 1"), "line 2: R is no rotation"),
    (ROW.replace("1 0 0 0 1", "-1 0 0 0 1"), "line 2: R is no rotation"),
    (ROW.replace("10 20.5 800", "0.01 0.02 0.8"), "line 2: t must be in millimetres"),
    (ROW.replace("0.25", "-2"), "line 2: time must be seconds"),
    (f"{ROW}\n{ROW.replace('0.25', '0.26')}", "line 3: time is 0.26, that of an earlier row"),
    ("", "has no rows"),
])
def test_wrong_rows_are_named(tmp_path, line, message):
    path = tmp_path / "ours_lmo-test.csv"
    path.write_text(f"{bop_results.HEADER}\n{line}\n")
    with pytest.raises(BopError, match=message) as error:
        read_results(path)
    assert str(path) in str(error.value)


def test_wrong_estimates_are_not_written_and_an_earlier_file_stays(tmp_path):
    path, good = tmp_path / "ours_lmo-test.csv", estimates()
    write_results(path, good)
    before = path.read_bytes()
    broken = good[2].T_cam_obj.copy()
    broken[0, 3] = np.nan
    for wrong, message in (
            ([], "nothing to be written"),
            ([good[0], dataclasses.replace(good[2], T_cam_obj=broken)],
             r"estimate 1 \(scene 2, image 4\): pose and score"),
            ([good[0], dataclasses.replace(good[1], time=3.0)], "must be the same"),
            ([dataclasses.replace(good[0], score=np.inf)], "must be finite")):
        with pytest.raises(BopError, match=message):
            write_results(path, wrong)
    with pytest.raises(BopError, match="METHOD_DATASET"):
        write_results(tmp_path / "ours.csv", good)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(BopError, match="no such file"):
        read_results(tmp_path / "other_lmo-test.csv")


def test_images_without_a_row():
    assert missing_images(estimates(), [(2, 4), (3, 1), (2, 9)]) == [(2, 9), (3, 1)]
