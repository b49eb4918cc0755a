"""kd_pose.wholebody_pose: boxes to keypoints in the image, on a network that sees painted dots."""

import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from helpers import published_models as published
from helpers.tiny_people import GAIN, people_manifest, write_people_model
from kd_pose.manifest import ModelFileError, PersonDetectorManifest
from kd_pose.results import STAGES, Detection2D, TrackState
from kd_pose.simcc_network import SimccNetwork, keypoint_confidence
from kd_pose.wholebody_keypoints import COUNT
from kd_pose.wholebody_pose import WholebodyPoseEstimator, WholebodyPoseOptions

RED, GREEN, BLUE = (np.arange(COUNT) % 3 == channel for channel in range(3))
SEEN = GAIN > 0


def box(x, y, w, h, score=1.0, name="person"):
    return Detection2D(name, score, np.array([x, y, w, h], dtype=float))


def picture(*dots, size=(120, 160)):
    """BGR, black, with one pixel painted per (x, y, channel of RGB)."""
    image = np.zeros((*size, 3), np.uint8)
    for x, y, channel in dots:
        image[y, x, 2 - channel] = 255
    return image


# A box whose crop is the picture itself, pixel by pixel: padded by 1.25 it has the input's 48 x 64
# pixels, and its middle, (x + 23.5, y + 31.5), falls on that of the input, which is (23.5, 31.5).
def unit_box(x, y, **more):
    return box(x + 23.5 - 19.2, y + 31.5 - 25.6, 38.4, 51.2, **more)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_people_model(tmp_path_factory.mktemp("models") / "people.onnx")


@pytest.fixture(scope="module")
def estimator(path):
    return WholebodyPoseEstimator(path, backend="onnxruntime", device="cpu", threads=1)


class TestPlaces:
    DOTS = [(50, 40, 0), (60, 50, 1), (41, 71, 2)]

    def test_dots_are_found_where_they_were_painted(self, estimator):
        frame = estimator.estimate(picture(*self.DOTS), boxes=[unit_box(30, 20)])
        (person,) = frame.people
        for mask, (x, y, _) in zip((RED, GREEN, BLUE), self.DOTS):
            found = person.keypoints_xy[mask & SEEN]
            assert np.allclose(found, (x, y), atol=1e-9)
        assert np.allclose(person.keypoint_scores, GAIN, atol=1e-6)
        assert person.keypoints_xyz is None and person.id == ""
        assert person.track_state == TrackState.TENTATIVE
        assert person.keypoints_xy.shape == (133, 2) and person.keypoint_scores.shape == (133,)

    def test_a_score_of_zero_has_no_place(self, estimator):
        frame = estimator.estimate(picture(*self.DOTS), boxes=[unit_box(30, 20)])
        xy, scores = frame.people[0].keypoints_xy, frame.people[0].keypoint_scores
        assert np.isnan(xy[~SEEN]).all() and (scores[~SEEN] == 0).all()
        assert np.isfinite(xy[SEEN]).all()

    def test_a_box_twice_as_large_is_seen_at_half_the_size(self, estimator):
        image = np.zeros((300, 300, 3), np.uint8)
        image[100:104, 120:124] = 255
        big = box(80, 60, 76.8, 102.4)
        (person,) = estimator.estimate(image, boxes=[big]).people
        # The box's middle, (118.4, 111.2), falls on (23.5, 31.5), and an input pixel has two of
        # the image. The first that are all white are 25 and 26: 118.4 + 3, 111.2 - 11.
        assert np.allclose(person.keypoints_xy[SEEN], (121.4, 100.2), atol=1e-9)
        assert np.allclose(person.keypoint_scores, GAIN, atol=1e-6)

    def test_the_box_is_grown_to_the_aspect_and_never_squeezed(self, estimator):
        # 38.4 wide and low: the width rules, so the crop is the same as that of the whole box
        wide = box(30 + 23.5 - 19.2, 20 + 31.5 - 2.0, 38.4, 4.0)
        frame = estimator.estimate(picture(*self.DOTS), boxes=[wide])
        assert np.allclose(frame.people[0].keypoints_xy[RED & SEEN], (50, 40), atol=1e-9)

    def test_rgb_and_bgr(self, estimator):
        image = picture(*self.DOTS)
        bgr = estimator.estimate(image, boxes=[unit_box(30, 20)]).people[0]
        rgb = estimator.estimate(np.ascontiguousarray(image[..., ::-1]), channel_order="rgb",
                                 boxes=[unit_box(30, 20)]).people[0]
        assert np.array_equal(bgr.keypoints_xy, rgb.keypoints_xy, equal_nan=True)
        swapped = estimator.estimate(image, channel_order="rgb", boxes=[unit_box(30, 20)])
        assert np.allclose(swapped.people[0].keypoints_xy[BLUE & SEEN], (50, 40), atol=1e-9)

    @pytest.mark.parametrize("x, y", [(-24, 10), (160 - 24, 10), (40, -40), (40, 120 - 20)])
    def test_half_out_of_the_frame(self, estimator, x, y):
        """Keypoints that are in the picture come out where they are; outside it is dark."""
        dots = [(min(max(x + 24, 3), 155), min(max(y + 32, 3), 115), c) for c in range(3)]
        (person,) = estimator.estimate(picture(*dots), boxes=[unit_box(x, y)]).people
        assert np.allclose(person.keypoints_xy[SEEN], dots[0][:2], atol=1e-9)
        assert person.box_xywh[0] == pytest.approx(x + 4.3)  # not cut off

    def test_what_lies_outside_has_the_value_of_the_manifest(self, tmp_path):
        bright = write_people_model(tmp_path / "b.onnx", border_value=255)
        one = WholebodyPoseEstimator(bright, backend="onnxruntime", device="cpu", threads=1)
        (person,) = one.estimate(picture(), boxes=[unit_box(-24, 10)]).people
        # the left half of the crop lies outside and is the brightest: its first column and row
        assert np.allclose(person.keypoints_xy[SEEN], (-24, 10), atol=1e-9)


class TestPeople:
    def people(self):
        image = picture((20, 30, 0), (100, 50, 0), (21, 31, 1), (101, 51, 1), (22, 32, 2),
                        (102, 52, 2))
        return image, [unit_box(0, 0, score=0.5), unit_box(80, 20, score=0.9)]

    def test_best_first(self, estimator):
        image, boxes = self.people()
        frame = estimator.estimate(image, boxes=boxes)
        assert [item.score for item in frame.detections] == [0.9, 0.5]
        assert np.allclose(frame.people[0].keypoints_xy[RED & SEEN], (100, 50), atol=1e-9)
        assert np.allclose(frame.people[1].keypoints_xy[RED & SEEN], (20, 30), atol=1e-9)
        assert np.array_equal(frame.people[0].box_xywh, boxes[1].box_xywh)

    def test_a_person_s_score(self, estimator):
        """The box's times the mean above 0.2: all that count have 0.8."""
        image, boxes = self.people()
        scores = [person.score for person in estimator.estimate(image, boxes=boxes).people]
        assert scores == pytest.approx([0.9 * 0.8, 0.5 * 0.8], abs=1e-6)

    def test_batch_equals_one_by_one(self, estimator):
        image, boxes = self.people()
        together = estimator.estimate(image, boxes=boxes).people
        for person, item in zip(together, (boxes[1], boxes[0])):
            (alone,) = estimator.estimate(image, boxes=[item]).people
            assert np.array_equal(person.keypoints_xy, alone.keypoints_xy, equal_nan=True)
            assert np.array_equal(person.keypoint_scores, alone.keypoint_scores)
            assert person.score == alone.score

    def test_all_people_are_one_batch(self, estimator, monkeypatch):
        image, boxes = self.people()
        sizes, run = [], estimator._network.session.run
        monkeypatch.setattr(estimator._network.session, "run",
                            lambda inputs: sizes.append(len(inputs["image"])) or run(inputs))
        estimator.estimate(image, boxes=boxes * 3)
        assert sizes == [6]

    def test_a_file_with_a_fixed_batch_is_run_one_by_one(self, estimator, tmp_path, monkeypatch):
        image, boxes = self.people()
        fixed = write_people_model(tmp_path / "one.onnx", batch=1)
        one = WholebodyPoseEstimator(fixed, backend="onnxruntime", device="cpu", threads=1)
        sizes, run = [], one._network.session.run
        monkeypatch.setattr(one._network.session, "run",
                            lambda inputs: sizes.append(len(inputs["image"])) or run(inputs))
        expected, found = (e.estimate(image, boxes=boxes).people for e in (estimator, one))
        assert sizes == [1, 1]
        for a, b in zip(expected, found):
            assert np.array_equal(a.keypoints_xy, b.keypoints_xy, equal_nan=True)
            assert np.array_equal(a.keypoint_scores, b.keypoint_scores)

    def test_the_same_person_twice_is_reported_once(self, estimator):
        image, boxes = self.people()
        again = unit_box(2, 1, score=0.4)
        frame = estimator.estimate(image, boxes=[*boxes, again])
        assert len(frame.people) == 2 and len(frame.detections) == 3
        assert [round(person.score, 6) for person in frame.people] == [0.72, 0.4]
        options = WholebodyPoseOptions(duplicate_oks=1.0)
        estimator.options, before = options, estimator.options
        try:
            assert len(estimator.estimate(image, boxes=[*boxes, again]).people) == 3
        finally:
            estimator.options = before

    def test_frames_know_nothing_of_each_other(self, estimator):
        image, boxes = self.people()
        first = estimator.estimate(image, boxes=boxes[:1]).people[0]
        kept = first.keypoints_xy.copy()
        estimator.estimate(picture((90, 90, 0)), boxes=[unit_box(70, 40), unit_box(60, 40)])
        assert np.array_equal(first.keypoints_xy, kept, equal_nan=True)
        again = estimator.estimate(image, boxes=boxes[:1]).people[0]
        assert np.array_equal(again.keypoints_xy, kept, equal_nan=True)

    def test_nobody(self, estimator):
        frame = estimator.estimate(picture(), boxes=[])
        assert frame.people == [] and frame.detections == [] and frame.ignored_boxes == 0
        assert tuple(frame.timing_ms) == STAGES

    def test_timing(self, estimator):
        image, boxes = self.people()
        timing = estimator.estimate(image, boxes=boxes).timing_ms
        assert tuple(timing) == STAGES
        assert min(timing[stage] for stage in ("crop", "network", "decode", "pose")) > 0
        assert timing["detector"] < 5  # not run


class TestOptions:
    def test_max_people_takes_the_best_boxes(self, path):
        options = WholebodyPoseOptions(max_people=2)
        one = WholebodyPoseEstimator(path, backend="onnxruntime", threads=1, options=options)
        image = picture((20, 30, 0), (70, 40, 0), (120, 50, 0))
        boxes = [unit_box(0, 0, score=0.3), unit_box(50, 10, score=0.9),
                 unit_box(100, 20, score=0.6)]
        frame = one.estimate(image, boxes=boxes)
        assert [item.score for item in frame.detections] == [0.9, 0.6]
        assert len(frame.people) == 2 and frame.ignored_boxes == 0

    def test_person_threshold(self, path):
        options = WholebodyPoseOptions(person_score_threshold=0.5)
        one = WholebodyPoseEstimator(path, backend="onnxruntime", threads=1, options=options)
        image = picture((20, 30, 0), (100, 50, 0))
        boxes = [unit_box(0, 0, score=0.5), unit_box(80, 20, score=0.9)]
        frame = one.estimate(image, boxes=boxes)
        assert [person.score for person in frame.people] == pytest.approx([0.72])
        assert len(frame.detections) == 2

    def test_keypoint_threshold(self, path):
        """At 0.05 the three keypoints with 0.1 count, too: one red, green and blue each."""
        options = WholebodyPoseOptions(keypoint_score_threshold=0.05)
        one = WholebodyPoseEstimator(path, backend="onnxruntime", threads=1, options=options)
        dots = picture((20, 30, 0), (20, 30, 1), (20, 30, 2))
        (person,) = one.estimate(dots, boxes=[unit_box(0, 0)]).people
        assert person.score == pytest.approx((127 * 0.8 + 3 * 0.1) / 130, abs=1e-6)
        assert np.isfinite(person.keypoints_xy[3:6]).all()

    @pytest.mark.parametrize("name, value", [
        ("detector_score_threshold", 1.5), ("max_people", 0), ("person_score_threshold", -0.1),
        ("keypoint_score_threshold", np.nan), ("duplicate_oks", 2)])
    def test_nonsense_is_refused_by_name(self, name, value):
        with pytest.raises(ValueError, match=f"{name} must be"):
            WholebodyPoseOptions(**{name: value})


class TestBoxes:
    @pytest.mark.parametrize("bad", [
        box(10, 10, 0, 20), box(10, 10, 20, 0), box(10, 10, -5, 20), box(np.nan, 10, 20, 20),
        box(10, 10, np.inf, 20), box(10, 10, 20, 0.3), box(159.5, 10, 50, 50),
        box(-60, 10, 59.5, 50), box(10, 119.5, 50, 50), box(10, -60, 50, 59.5),
        box(10, 10, 20, 20, score=np.nan), box(10, 10, 20, 20, name="dog"),
        box(-5e299, -5e299, 1e300, 1e300), box(-5e154, -5e154, 1e155, 1e155),
        Detection2D("person", 1.0, np.zeros(3))])
    def test_what_cannot_be_looked_at_is_counted(self, estimator, bad):
        good = unit_box(30, 20)
        frame = estimator.estimate(picture((50, 40, 0)), boxes=[bad, good])
        assert frame.ignored_boxes == 1 and len(frame.people) == 1
        assert frame.detections == [good]
        alone = estimator.estimate(picture((50, 40, 0)), boxes=[bad])
        assert alone.people == [] and alone.ignored_boxes == 1

    @pytest.mark.parametrize("odd", [
        box(159.4, 10, 50, 50), box(-1e7, -1e7, 2e7, 2e7), box(10, 10, 1, 1),
        box(10, 10, 1, 1e6)])
    def test_odd_boxes_are_looked_at(self, estimator, odd):
        frame = estimator.estimate(picture((50, 40, 0)), boxes=[odd])
        assert len(frame.people) == 1 and frame.ignored_boxes == 0

    def test_plain_lists_are_boxes_too(self, estimator):
        item = Detection2D("person", 1, [34.3, 25.9, 38.4, 51.2])
        (person,) = estimator.estimate(picture((50, 40, 0)), boxes=[item]).people
        assert person.box_xywh.tolist() == [34.3, 25.9, 38.4, 51.2]

    def test_scores_beyond_one_count_as_one(self, estimator):
        (person,) = estimator.estimate(picture((50, 40, 0)),
                                       boxes=[unit_box(30, 20, score=7.0)]).people
        assert person.score == pytest.approx(0.8)


DETECTED = [unit_box(2, 20, score=0.6), unit_box(70, 10, score=0.9)]
DOTS = [(20, 50, 0), (21, 51, 1), (22, 52, 2), (90, 40, 0), (91, 41, 1), (92, 42, 2)]


@pytest.fixture(scope="module")
def both(path, tmp_path_factory):
    size = (128, 96)
    boxes = np.array([item.box_xywh for item in DETECTED])
    # the networks count edges from the left of the first pixel
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1) + 0.5
    rows = published.yolox_rows(corners, np.array([0.6, 0.9]), size)
    file = published.yolox(tmp_path_factory.mktemp("detector") / "yolox.onnx", rows, size)
    published.embed(file, PersonDetectorManifest(
        task="person_detector", architecture="yolox", layout="yolox_grid", input_size=size,
        mean=(0, 0, 0), std=(1, 1, 1), channel_order="bgr", input_name="images",
        output_names=("output",)))
    return WholebodyPoseEstimator(path, file, backend="onnxruntime", device="cpu", threads=1)


class TestDetector:
    """A YOLOX file that answers with the boxes of two people, and the dots that they wear."""

    def test_finds_boxes_and_people(self, both):
        image = picture(*DOTS, size=(96, 128))
        frame = both.estimate(image)
        assert both.has_detector and frame.ignored_boxes == 0
        assert [item.score for item in frame.detections] == pytest.approx([0.9, 0.6], abs=1e-6)
        for person, x, y, item in zip(frame.people, (90, 20), (40, 50), DETECTED[::-1]):
            assert np.allclose(person.box_xywh, item.box_xywh, atol=1e-3)
            for mask, shift in ((RED, 0), (GREEN, 1), (BLUE, 2)):
                found = person.keypoints_xy[mask & SEEN]
                assert np.allclose(found, (x + shift, y + shift), atol=0.51)
        assert frame.timing_ms["detector"] > 0

    def test_detect_alone_and_its_threshold(self, both):
        image = picture(size=(96, 128))
        assert len(both.detect(image)) == 2
        both.options = WholebodyPoseOptions(detector_score_threshold=0.7)
        try:
            assert len(both.detect(image)) == 1
            assert len(both.estimate(image).people) == 1
        finally:
            both.options = WholebodyPoseOptions()

    def test_given_boxes_come_first(self, both):
        assert both.estimate(picture(size=(96, 128)), boxes=[]).people == []

    def test_a_file_that_is_no_detector(self, path):
        with pytest.raises(ModelFileError, match="people.onnx.*'wholebody'.*'person_detector'"):
            WholebodyPoseEstimator(path, path)


class TestFiles:
    @pytest.mark.parametrize("image", [
        np.zeros((10, 10), np.uint8), np.zeros((10, 10, 4), np.uint8), np.zeros((10, 10, 3)),
        np.zeros((0, 10, 3), np.uint8)])
    def test_images(self, estimator, image):
        with pytest.raises(ValueError, match="image must be uint8"):
            estimator.estimate(image, boxes=[])

    def test_channel_order(self, estimator):
        with pytest.raises(ValueError, match="channel_order must be bgr or rgb, got 'gbr'"):
            estimator.estimate(picture(), channel_order="gbr", boxes=[])

    def test_without_a_detector_boxes_are_needed(self, estimator):
        assert not estimator.has_detector
        for call in (estimator.estimate, estimator.detect):
            with pytest.raises(ValueError, match="no detector was loaded"):
                call(picture())

    def test_names_of_a_published_file(self, estimator, tmp_path):
        published = write_people_model(tmp_path / "p.onnx", input_name="input",
                                       output_names=("x", "y"))
        one = WholebodyPoseEstimator(published, backend="onnxruntime", threads=1)
        image = picture((50, 40, 0), (60, 50, 1))
        a, b = (e.estimate(image, boxes=[unit_box(30, 20)]).people[0] for e in (estimator, one))
        assert np.array_equal(a.keypoints_xy, b.keypoints_xy, equal_nan=True)

    @pytest.mark.parametrize("written, manifest, message", [
        (dict(), dict(output_names=("simcc_x", "heat")), "no 'heat' among simcc_x, simcc_y"),
        (dict(), dict(input_name="input"), "no 'input' among image"),
        (dict(), dict(output_names=("simcc_y", "simcc_x")),
         r"'simcc_y' has the shape \(-1, 133, 128\), its manifest says \(-1, 133, 96\)"),
        (dict(keypoints=17), dict(), r"'simcc_x' has the shape \(-1, 17, 96\)"),
        (dict(), dict(input_size=(64, 64)), r"'image' has the shape \(-1, 3, 64, 48\)"),
        (dict(), dict(split_ratio=3), r"'simcc_x' .* manifest says \(-1, 133, 144\)"),
        (dict(batch=4), dict(), "'image' wants 4 crops at once"),
    ])
    def test_a_manifest_that_contradicts_the_file(self, tmp_path, written, manifest, message):
        import onnx

        from kd_pose.manifest import METADATA_KEY

        path = write_people_model(tmp_path / "wrong.onnx", **written)
        model = onnx.load(str(path))
        onnx.helper.set_model_props(model, {METADATA_KEY: people_manifest(**manifest).to_json()})
        onnx.save(model, str(path))
        with pytest.raises(ModelFileError, match=f"wrong.onnx: {message}"):
            WholebodyPoseEstimator(path, backend="onnxruntime", threads=1)

    def test_a_file_that_hides_its_sizes_is_caught_when_it_runs(self, tmp_path):
        path = write_people_model(tmp_path / "open.onnx", keypoints=17, open_outputs=True)
        one = WholebodyPoseEstimator(path, backend="onnxruntime", threads=1)
        with pytest.raises(ModelFileError, match=r"open.onnx: 'simcc_x' answers \(1, 17, 96\)"):
            one.estimate(picture(), boxes=[unit_box(30, 20)])
        good = write_people_model(tmp_path / "good.onnx", open_outputs=True)
        one = WholebodyPoseEstimator(good, backend="onnxruntime", threads=1)
        assert len(one.estimate(picture((50, 40, 0)), boxes=[unit_box(30, 20)]).people) == 1

    def test_a_model_for_something_else(self, tmp_path):
        from helpers.tiny_models import example_scene, make_pose_model

        objects = make_pose_model(tmp_path / "objects.onnx", example_scene())
        with pytest.raises(ModelFileError, match="objects.onnx.*'object_votes'.*'wholebody'"):
            WholebodyPoseEstimator(objects)

    def test_warm_up_and_description(self, estimator):
        estimator.warm_up(2)
        assert "onnxruntime" in estimator.description
        assert estimator.manifest.skeleton == "coco_wholebody_133"

    def test_closed(self, path):
        one = WholebodyPoseEstimator(path, backend="onnxruntime", threads=1)
        one.close()
        with pytest.raises(RuntimeError, match="closed"):
            one.estimate(picture(), boxes=[unit_box(30, 20)])

    def test_imports_neither_torch_nor_an_engine(self):
        code = ("import sys\nimport kd_pose.wholebody_pose\n"
                "print([n for n in ('torch', 'onnx', 'onnxruntime', 'openvino') "
                "if n in sys.modules])")
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.stdout.strip() == "[]", done.stderr


class TestScores:
    def test_confidence_by_hand(self):
        raw = np.array([-3.0, 0.0, 0.25, 1.0, 1.7], np.float32)
        assert keypoint_confidence(raw, 1.0).tolist() == [0, 0, 0.25, 1, 1]
        assert keypoint_confidence(raw, 10.0).tolist() == pytest.approx([0, 0, 0.025, 0.1, 0.17])

    def test_scale_of_the_manifest(self, tmp_path):
        path = write_people_model(tmp_path / "rtmw.onnx", score_scale=4.0)
        one = WholebodyPoseEstimator(path, backend="onnxruntime", threads=1)
        (person,) = one.estimate(picture((50, 40, 0), (50, 40, 1), (50, 40, 2)),
                                 boxes=[unit_box(30, 20)]).people
        assert np.allclose(person.keypoint_scores, GAIN / 4, atol=1e-6)

    def test_logits_that_are_no_numbers_have_no_place(self, path):
        network = SimccNetwork(path, "wholebody", backend="onnxruntime", threads=1)
        x, y = np.zeros((1, COUNT, 96), np.float32), np.zeros((1, COUNT, 128), np.float32)
        x[0, :3, 10], y[0, :3, 20] = (np.nan, np.inf, 2.0), 0.5
        xy, scores = network.decode(x, y)
        assert scores[0, :4].tolist() == [0, 0.5, 0.5, 0]
        assert np.isnan(xy[0, [0, 3]]).all() and xy[0, 2].tolist() == [5, 10]
