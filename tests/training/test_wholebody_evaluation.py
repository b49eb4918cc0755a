"""kd_pose_training.evaluation.wholebody: AP and AR by hand, against xtcocotools, bad files."""

import contextlib
import io
import json

import numpy as np
import pytest

from helpers.wholebody_files import annotation, random_annotations, random_results
from kd_pose.wholebody_keypoints import COUNT, PARTS, SIGMAS
from kd_pose_training.evaluation.oks import SCORED
from kd_pose_training.evaluation.wholebody import (
    STATISTICS,
    average_precision,
    format_table,
    read_truth,
)
from kd_pose_training.evaluation.wholebody_results import (
    PersonEstimates,
    read_boxes,
    read_results,
    write_results,
)

SIZE = 100.0


def write(path, data):
    path.write_text(json.dumps(data))
    return path


def standing(offset=0.0):
    rng = np.random.default_rng(5)
    points = np.concatenate([50 + SIZE * rng.random((COUNT, 2)), np.ones((COUNT, 1))], axis=1)
    points[:, :2] += offset
    return points


def two_pictures(tmp_path, **changes):
    """One person each, of 100 x 100 pixels."""
    people = [annotation(number, 10 * number, standing(), (50, 50, SIZE, SIZE), SIZE * SIZE)
              for number in (1, 2)]
    people[1].update(changes)
    images = [{"id": 10 * number, "file_name": f"{number}.jpg", "width": 300, "height": 300}
              for number in (1, 2)]
    return write(tmp_path / "truth.json", {"images": images, "annotations": people})


def estimates(*rows):
    """(image_id, offset of all points, score)."""
    xy = np.stack([standing(offset)[:, :2] for _, offset, _ in rows])
    return PersonEstimates([row[0] for row in rows], xy, np.ones((len(rows), COUNT)),
                           [row[2] for row in rows])


def test_perfect_estimates(tmp_path):
    found = estimates((10, 0.0, 1.0), (20, 0.0, 1.0))
    table = average_precision(read_truth(two_pictures(tmp_path)), found)
    assert list(table) == ["body", "foot", "face", "left_hand", "right_hand", "hand", "wholebody"]
    for row in table.values():
        # 10000 px are more than 96^2: a large person, and there is no medium one
        assert [row[key] for key in STATISTICS if not key.endswith("_M")] == [1.0] * 8
        assert np.isnan(row["AP_M"]) and np.isnan(row["AR_M"])
    assert "100.00" in format_table(table) and "-" in format_table(table)


def test_a_wrong_and_surer_estimate_halves_the_precision(tmp_path):
    # Per threshold, best first: wrong, right, right. Precision 1/2 at recall 1/2 and 2/3 at 1,
    # so 2/3 everywhere.
    found = estimates((10, 500.0, 0.9), (10, 0.0, 0.5), (20, 0.0, 0.4))
    row = average_precision(read_truth(two_pictures(tmp_path)), found)["body"]
    assert row["AP"] == pytest.approx(2 / 3) and row["AR"] == 1.0


def test_one_of_two_people_found(tmp_path):
    # Precision 1 up to recall 1/2: 51 of the 101 recalls.
    row = average_precision(read_truth(two_pictures(tmp_path)), estimates((20, 0.0, 0.4)))["face"]
    assert row["AP"] == pytest.approx(51 / 101) and row["AR"] == 0.5


def test_an_offset_passes_the_thresholds_that_it_should(tmp_path):
    offset = 6.0
    body = np.exp(-2 * offset**2 / (2 * SIZE**2 * (2 * SIGMAS[PARTS["body"]]) ** 2)).mean()
    passed = int((np.linspace(0.5, 0.95, 10) <= body).sum())
    assert 0 < passed < 10
    found = estimates((10, offset, 1.0), (20, offset, 1.0))
    row = average_precision(read_truth(two_pictures(tmp_path)), found)["body"]
    assert row["AP"] == pytest.approx(passed / 10) == row["AR"]


def test_parts_without_labels_are_no_targets(tmp_path):
    changes = {"lefthand_kpts": [0.0] * 63}
    found = estimates((10, 0.0, 0.5), (20, 500.0, 0.9))
    table = average_precision(read_truth(two_pictures(tmp_path, **changes)), found)
    assert table["left_hand"]["AR"] == 1.0  # of the one labelled hand
    assert table["right_hand"]["AR"] == 0.5
    assert table["hand"]["AR"] == 0.75
    none = average_precision(
        read_truth(two_pictures(tmp_path, **changes)), estimates((20, 0.0, 1.0)))["left_hand"]
    assert none["AP"] == 0.0


def test_estimates_without_a_part_do_not_exist_in_it(tmp_path):
    found = estimates((10, 0.0, 0.5), (20, 0.0, 0.9), (20, 500.0, 0.99))
    found.keypoint_scores[2, PARTS["face"]] = 0.0
    table = average_precision(read_truth(two_pictures(tmp_path)), found)
    assert table["face"]["AP"] == 1.0 and table["body"]["AP"] == pytest.approx(2 / 3)


def test_only_twenty_estimates_of_a_picture_count(tmp_path):
    rows = [(10, 500.0, 0.9)] * 20 + [(10, 0.0, 0.1), (20, 0.0, 0.1)]
    row = average_precision(read_truth(two_pictures(tmp_path)), estimates(*rows))["body"]
    assert row["AR"] == 0.5


def test_areas_from_boxes(tmp_path):
    path = two_pictures(tmp_path, area=1.0)
    assert read_truth(path).area.tolist() == [SIZE * SIZE, 1.0]
    assert read_truth(path, use_area=False).area.tolist() == [0.53 * SIZE * SIZE] * 2


def test_nobody_estimated_and_nobody_there(tmp_path):
    nobody = PersonEstimates([], np.zeros((0, COUNT, 2)), np.zeros((0, COUNT)), [])
    row = average_precision(read_truth(two_pictures(tmp_path)), nobody)["body"]
    assert row["AP"] == 0.0 and row["AR"] == 0.0
    picture = {"id": 10, "file_name": "a.jpg", "width": 640, "height": 480}
    empty = write(tmp_path / "empty.json", {"images": [picture], "annotations": []})
    for found in (nobody, estimates((10, 0.0, 1.0))):
        assert np.isnan(average_precision(read_truth(empty), found)["wholebody"]["AP"])


def test_estimates_of_unknown_pictures(tmp_path):
    with pytest.raises(ValueError, match="1 estimates are of pictures .* image_id 11"):
        average_precision(read_truth(two_pictures(tmp_path)), estimates((11, 0.0, 1.0)))


KINDS = dict(zip(SCORED, ("body", "foot", "face", "lefthand", "righthand", "wholebody")))


def xtcocotools_table(truth_path, results_path, use_area):
    from xtcocotools.coco import COCO
    from xtcocotools.cocoeval import COCOeval
    table = {}
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(truth_path))
        results = truth.loadRes(str(results_path))
        for part, kind in KINDS.items():
            run = COCOeval(truth, results, f"keypoints_{kind}", SIGMAS[SCORED[part]],
                           use_area=use_area)
            run.params.useSegm = None
            run.evaluate()
            run.accumulate()
            run.summarize()
            table[part] = dict(zip(STATISTICS, run.stats))
    return table


@pytest.mark.filterwarnings("ignore:.*_score' not found")
@pytest.mark.parametrize("seed", range(4))
def test_equal_to_xtcocotools(tmp_path, seed):
    try:
        import xtcocotools.cocoeval  # noqa: F401
    except (ImportError, ValueError) as error:  # its wheel raises ValueError beside NumPy 2
        pytest.skip(f"xtcocotools cannot be imported: {error}")
    rng = np.random.default_rng(seed)
    data = random_annotations(rng, images=25)
    truth = write(tmp_path / "truth.json", data)
    results = write(tmp_path / "results.json", random_results(rng, data, ties=bool(seed % 2)))
    for use_area in (True, False):
        peer = xtcocotools_table(truth, results, use_area)
        own = average_precision(read_truth(truth, use_area), read_results(results))
        for part, row in peer.items():
            for key, value in row.items():
                expected = float("nan") if value == -1 else value
                assert own[part][key] == pytest.approx(expected, abs=1e-9, nan_ok=True)


def test_results_go_to_a_file_and_back(tmp_path):
    rng = np.random.default_rng(2)
    found = PersonEstimates([7, 3], rng.random((2, COUNT, 2)), rng.random((2, COUNT)), [0.1, 0.7])
    write_results(found, tmp_path / "results.json")
    read = read_results(tmp_path / "results.json")
    for name in ("image_id", "xy", "keypoint_scores", "score"):
        assert np.array_equal(getattr(read, name), getattr(found, name))
    assert set(json.loads((tmp_path / "results.json").read_text())[0]) == {
        "image_id", "category_id", "score", "keypoints", "foot_kpts", "face_kpts",
        "lefthand_kpts", "righthand_kpts"}
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
    write_results(found.select(np.zeros(0, np.int64)), tmp_path / "results.json")
    assert len(read_results(tmp_path / "results.json")) == 0


def test_bad_results(tmp_path):
    path = write(tmp_path / "results.json", [{"image_id": 1, "category_id": 1, "score": 1.0,
                                              "keypoints": [0.0] * 51}])
    with pytest.raises(ValueError, match=r"results.json: entry 0: key 'foot_kpts' is missing"):
        read_results(path)
    with pytest.raises(ValueError, match="results.json: must hold a list"):
        read_results(write(path, {}))
    with pytest.raises(ValueError, match=r"xy must have the shape \(1, 133, 2\)"):
        PersonEstimates([1], np.zeros((1, 17, 2)), np.zeros((1, 17)), [1.0])
    with pytest.raises(ValueError, match="score must be finite"):
        PersonEstimates([1], np.zeros((1, COUNT, 2)), np.zeros((1, COUNT)), [np.nan])


def test_boxes_of_a_detector(tmp_path):
    boxes = [{"image_id": 10, "category_id": 1, "bbox": [5, 6, 7, 8], "score": 0.5},
             {"image_id": 10, "category_id": 2, "bbox": [5, 6, 7, 8], "score": 0.9},
             {"image_id": 99, "category_id": 1, "bbox": [5, 6, 7, 8], "score": 0.9},
             {"image_id": 20, "category_id": 1, "bbox": [5, 6, 0, 8], "score": 0.9}]
    path = write(tmp_path / "boxes.json", boxes)
    ids, size = np.array([10, 20]), np.array([[300, 200], [100, 400]])
    read = read_boxes(path, ids, size)
    assert read.image_id.tolist() == [10] and read.score.tolist() == [0.5]
    assert read.box_xywh.tolist() == [[4.5, 5.5, 7, 8]]  # edges before pixel centres
    with pytest.raises(ValueError, match="none of its 4 boxes is of a person in one of"):
        read_boxes(path, np.array([1]), size[:1])
    del boxes[0]["score"]
    with pytest.raises(ValueError, match="entry 0: key 'score' is missing"):
        read_boxes(write(path, boxes), ids, size)
    assert len(read_boxes(write(path, []), ids, size).score) == 0


def test_boxes_that_show_nothing_are_counted(tmp_path):
    """Pictures of 300 x 200 and 100 x 400 pixels; edges are as in the file."""
    good = [(10, [-7, 5, 8, 8]), (10, [299, 199, 50, 50]), (20, [50, 300, 9, 9])]
    bad = [(10, [1e9, 10, 10, 10]), (10, [300, 10, 10, 10]), (10, [-10, 10, 10, 10]),
           (20, [150, 10, 10, 10]), (20, [10, 10, 0, 10]), (10, [10, 300, 9, 9]),
           (20, [10, 10, 10, -5]), (10, [-5e299, -5e299, 1e300, 1e300])]
    path = write(tmp_path / "boxes.json", [
        {"image_id": number, "category_id": 1, "bbox": box, "score": 0.5}
        for number, box in (*bad, *good)])
    read = read_boxes(path, np.array([10, 20]), np.array([[300, 200], [100, 400]]))
    assert [(number, (box + (0.5, 0.5, 0, 0)).tolist())
            for number, box in zip(read.image_id, read.box_xywh)] == good
    assert read.left_out == {"without an area in their picture": 7, "too large": 1}


def test_annotations_without_areas(tmp_path):
    path = two_pictures(tmp_path)
    data = json.loads(path.read_text())
    del data["annotations"][1]["area"]
    with pytest.raises(ValueError, match="annotation 2: key 'area' is missing"):
        read_truth(write(path, data))
    assert len(read_truth(path, use_area=False).area) == 2
