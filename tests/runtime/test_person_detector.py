"""kd_pose.person_detector: files with published layouts, run by the runtime's own engine."""

import numpy as np
import pytest

pytest.importorskip("onnx")
from helpers import published_models as published
from helpers.tiny_models import example_scene, make_detector_model
from kd_pose.boxes import iou, xyxy_from_xywh
from kd_pose.crop import apply_affine, corner_affine
from kd_pose.manifest import (
    ModelFileError,
    ObjectSpec,
    PersonDetectorManifest,
    manifest_from_json,
)
from kd_pose.person_detector import (
    MAX_CANDIDATES,
    PublishedPersonDetector,
    VotePersonDetector,
    open_person_detector,
)

SIZE = (128, 96)  # of the input, and of images that are not scaled
PEOPLE = np.array([[10.0, 12, 40, 90], [60, 8, 100, 80], [62, 10, 99, 82]])
SCORES = np.array([0.9, 0.5, 0.8])


def manifest(layout="yolox_grid", **changes):
    names = {"yolox_grid": ("output",), "yolox_boxes": ("output",),
             "boxes_scores": ("boxes", "scores"), "dets_labels": ("dets", "labels"),
             "rtmdet_maps": tuple(f"{name}.{level}" for name in ("cls_scores", "bbox_preds")
                                  for level in range(3))}
    values = dict(
        task="person_detector", architecture="yolox", layout=layout, input_size=SIZE,
        mean=(0, 0, 0), std=(1, 1, 1), channel_order="bgr",
        output_names=names.get(layout, ("output",)),
        input_name="images" if layout.startswith("yolox") else "input")
    return PersonDetectorManifest(**{**values, **changes})


def yolox_file(path, boxes=PEOPLE, scores=SCORES, labels=0, **changes):
    rows = published.yolox_rows(boxes, scores, SIZE, classes=3, labels=labels)
    return published.embed(published.yolox(path, rows, SIZE), manifest(**changes))


def picture(width=SIZE[0], height=SIZE[1], seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def edges(detections):
    """(M, 4) xyxy with edge 0 at the left of the first pixel, as the networks count."""
    return xyxy_from_xywh(np.array([item.box_xywh for item in detections]).reshape(-1, 4)) + 0.5


class TestYolox:
    def test_boxes_best_first_without_the_double(self, tmp_path):
        detector = open_person_detector(yolox_file(tmp_path / "y.onnx"), threads=1)
        assert isinstance(detector, PublishedPersonDetector) and "onnxruntime" in (
            detector.description)
        found = detector.detect(picture())
        assert [item.class_id for item in found] == ["person", "person"]
        assert np.allclose([item.score for item in found], [0.9, 0.8], atol=1e-5)
        assert np.allclose(edges(found), PEOPLE[[0, 2]], atol=1e-3)

    @pytest.mark.parametrize("width, height", [(256, 192), (64, 48), (100, 200), (700, 96)])
    def test_boxes_are_those_of_the_image(self, tmp_path, width, height):
        """A box of the input is as much larger in the image as the image is."""
        detector = open_person_detector(yolox_file(tmp_path / "y.onnx"), threads=1)
        scale = min(SIZE[0] / width, SIZE[1] / height)
        wanted = np.clip(PEOPLE[[0, 2]] / scale, 0, [width, height] * 2)
        wanted = wanted[(wanted[:, 2:] - wanted[:, :2]).min(axis=1) >= 1]
        assert np.allclose(edges(detector.detect(picture(width, height))), wanted, atol=1e-2)

    def test_thresholds_and_number(self, tmp_path):
        path = yolox_file(tmp_path / "y.onnx", score_threshold=0.85)
        detector = open_person_detector(path, threads=1)
        assert [round(item.score, 3) for item in detector.detect(picture())] == [0.9]
        assert len(detector.detect(picture(), score_threshold=0.3)) == 2
        assert len(detector.detect(picture(), score_threshold=0.3, max_people=1)) == 1
        assert detector.detect(picture(), score_threshold=0.99) == []

    def test_doubles_stay_where_the_manifest_says_so(self, tmp_path):
        path = yolox_file(tmp_path / "y.onnx", nms_threshold=1.0)
        assert len(open_person_detector(path, threads=1).detect(picture())) == 3

    def test_only_people(self, tmp_path):
        path = yolox_file(tmp_path / "y.onnx", labels=[0, 2, 2])
        assert np.allclose(edges(open_person_detector(path).detect(picture())), PEOPLE[:1],
                           atol=1e-3)
        other = yolox_file(tmp_path / "other.onnx", labels=[0, 2, 2], person_class=2)
        assert np.allclose(edges(open_person_detector(other).detect(picture())), PEOPLE[2:],
                           atol=1e-3)

    def test_cut_off_at_the_edges_of_the_image(self, tmp_path):
        boxes = np.array([[-20.0, -5, 30, 120], [110, 40, 180, 60], [40, 95.5, 80, 140]])
        path = yolox_file(tmp_path / "y.onnx", boxes, [0.9, 0.8, 0.7])
        found = open_person_detector(path, threads=1).detect(picture())
        assert np.allclose(edges(found), [[0, 0, 30, 96], [110, 40, 128, 60]], atol=1e-3)

    def test_decoded_by_the_file(self, tmp_path):
        rows = published.yolox_rows(PEOPLE, SCORES, SIZE, classes=1)
        path = published.embed(published.yolox(tmp_path / "y.onnx", rows, SIZE, decoded=True),
                               manifest("yolox_boxes"))
        found = open_person_detector(path, threads=1).detect(picture())
        assert np.allclose(edges(found), PEOPLE[[0, 2]], atol=1e-3)

    def test_a_flood_of_boxes(self, tmp_path):
        """As with an untrained network: every cell a person, and still an answer."""
        size = (640, 640)
        rows = np.zeros((8400, 6))
        rows[:, 4:] = 1.0
        path = published.embed(published.yolox(tmp_path / "y.onnx", rows, size),
                               manifest(input_size=size))
        found = open_person_detector(path, threads=1).detect(picture(640, 640),
                                                             max_people=5000)
        assert 0 < len(found) <= MAX_CANDIDATES


class TestOtherLayouts:
    def test_boxes_and_scores(self, tmp_path):
        count = published.cells(SIZE)
        boxes, scores = np.zeros((count, 4)), np.zeros((count, 2))
        boxes[:3], scores[:3, 0] = PEOPLE, SCORES
        path = published.boxes_scores(tmp_path / "m.onnx", boxes, scores, SIZE)
        detector = open_person_detector(published.embed(path, manifest("boxes_scores")))
        assert np.allclose(edges(detector.detect(picture())), PEOPLE[[0, 2]], atol=1e-4)

    def test_with_the_suppression_of_the_file(self, tmp_path):
        scores = np.stack([SCORES, np.full(3, 0.2)], axis=1)
        path = published.with_suppression(tmp_path / "m.onnx", PEOPLE, scores, SIZE)
        detector = open_person_detector(published.embed(path, manifest("dets_labels")))
        found = detector.detect(picture())
        assert np.allclose([item.score for item in found], [0.9, 0.8], atol=1e-6)
        assert np.allclose(edges(found), PEOPLE[[0, 2]], atol=1e-4)
        # the rows of another class and the row of zeros never come out
        assert len(detector.detect(picture(), score_threshold=0.0)) == 2

    def test_suppression_inside_and_outside_agree(self, tmp_path):
        """The same boxes before and after ONNX's own NonMaxSuppression."""
        size = (640, 640)
        for seed in range(3):
            boxes, scores = published.random_people(seed)
            inside = published.with_suppression(
                tmp_path / "in.onnx", boxes, scores[:, None], size, score=0.3)
            rows = published.yolox_rows(boxes, scores, size, classes=1)
            outside = published.yolox(tmp_path / "out.onnx", rows, size)
            found = [open_person_detector(published.embed(path, manifest(
                layout, input_size=size, score_threshold=0.3))).detect(picture(640, 640))
                for path, layout in ((inside, "dets_labels"), (outside, "yolox_grid"))]
            assert len(found[0]) == len(found[1]) > 3
            assert np.allclose(edges(found[0]), edges(found[1]), atol=1e-2)

    def test_rtmdet_maps(self, tmp_path):
        logits = [np.full((1, SIZE[1] // s, SIZE[0] // s), -9.0) for s in published.STRIDES]
        distances = [np.ones((4, *level.shape[1:])) for level in logits]
        logits[2][0, 1, 2] = 2.0  # corner (64, 32); distances in strides of 32
        distances[2][:, 1, 2] = [1.0, 0.5, 0.75, 1.5]
        path = published.rtmdet_maps(tmp_path / "r.onnx", logits, distances, SIZE)
        detector = open_person_detector(published.embed(path, manifest("rtmdet_maps")))
        found = detector.detect(picture())
        assert np.allclose(edges(found), [[32, 16, 88, 80]], atol=1e-4)
        assert np.allclose(found[0].score, 1 / (1 + np.exp(-2)))


class Recorder:
    """Stands in for the session and keeps what the network would see."""

    def __init__(self, session):
        self.session, self.batch = session, None
        self.outputs, self.description = session.outputs, session.description

    def run(self, inputs):
        self.batch = inputs["images"].copy()
        return self.session.run(inputs)


class TestPictures:
    def seen(self, tmp_path, image, order="bgr", **changes):
        detector = open_person_detector(yolox_file(tmp_path / "y.onnx", **changes), threads=1)
        detector.session = Recorder(detector.session)
        detector.detect(image, order)
        return detector.session.batch[0]

    def test_yolox_gets_bytes_in_bgr_and_grey(self, tmp_path):
        image = picture(64, 96)
        seen = self.seen(tmp_path, image)
        assert np.array_equal(seen[:, :, :64], image.transpose(2, 0, 1))
        assert (seen[:, :, 64:] == 114).all()
        assert np.array_equal(self.seen(tmp_path, image[..., ::-1].copy(), "rgb"), seen)

    def test_rtmdet_is_normalised_in_its_order(self, tmp_path):
        mean, std = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)
        image = np.full((SIZE[1], SIZE[0], 3), (10, 20, 30), np.uint8)
        seen = self.seen(tmp_path, image, mean=mean, std=std)
        wanted = (np.array([10, 20, 30]) - mean) / std
        assert np.allclose(seen[:, 40, 40], wanted, atol=1e-5)

    def test_affine_keeps_corners_together(self):
        M = corner_affine((1280, 720), (640, 640))
        assert np.allclose(apply_affine(M, np.array([[-0.5, -0.5], [1279.5, 719.5]])),
                           [[-0.5, -0.5], [639.5, 359.5]])

    @pytest.mark.parametrize("width, height", [(1280, 720), (250, 500), (40, 30)])
    def test_as_resized_by_opencv(self, tmp_path, width, height):
        """The published way: resize, then paste; sizes whose scaled ones are whole numbers."""
        import cv2

        image = cv2.GaussianBlur(picture(width, height), (0, 0), 3)
        seen = self.seen(tmp_path, image).transpose(1, 2, 0)
        scale = min(SIZE[0] / width, SIZE[1] / height)
        w, h = int(width * scale), int(height * scale)
        resized = cv2.resize(image, (w, h), interpolation=cv2.INTER_LINEAR)
        difference = np.abs(seen[1:h - 1, 1:w - 1] - resized[1:-1, 1:-1].astype(float))
        assert np.median(difference) <= 1 and np.percentile(difference, 99) <= 6


class TestVoteDetector:
    def person_scene(self):
        scene = example_scene()
        scene.specs = tuple(
            ObjectSpec(name, spec.diameter, spec.box_min, spec.box_max)
            for name, spec in zip(("person", "chair"), scene.specs))
        return scene

    def test_opens_the_projects_own(self, tmp_path):
        scene = self.person_scene()
        path = make_detector_model(tmp_path / "d.onnx", scene)
        detector = open_person_detector(path, threads=1)
        assert isinstance(detector, VotePersonDetector)
        detector.warm_up(1)
        found = detector.detect(scene.image())
        assert [item.class_id for item in found] == ["person"]  # not the chair
        assert np.allclose(found[0].box_xywh, scene.box_xywh(0), atol=0.5)
        assert detector.detect(scene.image(), score_threshold=0.95) == []
        detector.close()

    def test_one_without_people(self, tmp_path):
        path = make_detector_model(tmp_path / "d.onnx", example_scene())
        with pytest.raises(ModelFileError, match="d.onnx: detects block, can, not person"):
            open_person_detector(path)


class TestManifest:
    def test_round_trip(self):
        original = manifest("rtmdet_maps", training={"source": "x.onnx"})
        assert manifest_from_json(original.to_json()) == original

    @pytest.mark.parametrize("changes, message", [
        ({"layout": "yolo"}, "layout must be one of yolox_grid, .*, got 'yolo'"),
        ({"architecture": "yolov8"}, "architecture must be one of yolox, rtmdet"),
        ({"task": "wholebody"}, "task must be one of person_detector"),
        ({"strides": (16, 8)}, r"strides must increase, got \(16, 8\)"),
        ({"strides": ()}, "strides must be positive integers"),
        ({"input_size": (130, 96)}, r"\(130, 96\) must be multiples of the largest stride, 32"),
        ({"person_class": -1}, "person_class must be a whole number of 0 or more, got -1"),
        ({"person_class": True}, "person_class"),
        ({"person_class": 0.0}, "person_class"),
        ({"score_threshold": 1.5}, "score_threshold must be 0.0 to 1.0, got 1.5"),
        ({"nms_threshold": -1}, "nms_threshold"),
        ({"output_names": ("a", "b")}, "output_names of yolox_grid must be 1 different texts"),
        ({"output_names": "output"}, "output_names must be a list of texts"),
        ({"output_names": ("",)}, "output_names"),
        ({"input_name": ""}, "input_name must be a text"),
    ])
    def test_what_it_refuses(self, changes, message):
        with pytest.raises(ValueError, match=message):
            manifest(**changes)

    def test_maps_are_two_for_every_stride(self):
        with pytest.raises(ValueError, match="rtmdet_maps must be 4 different texts"):
            manifest("rtmdet_maps", strides=(8, 16))


class TestBadInput:
    def test_files(self, tmp_path):
        with pytest.raises(ModelFileError, match="no such model file"):
            open_person_detector(tmp_path / "absent.onnx")
        rows = published.yolox_rows(PEOPLE, SCORES, SIZE, classes=3)
        path = published.yolox(tmp_path / "plain.onnx", rows, SIZE)
        with pytest.raises(ModelFileError, match="plain.onnx: no 'kd_pose.manifest'"):
            open_person_detector(path)

    @pytest.mark.parametrize("changes, message", [
        ({"input_name": "picture"}, "no 'picture' among images"),
        ({"output_names": ("boxes",)}, "no boxes among its outputs output"),
        ({"input_size": (128, 128)}, r"has the shape \(1, 3, 96, 128\), its manifest says "
                                     r"\(-1, 3, 128, 128\)"),
    ])
    def test_ports_against_the_manifest(self, tmp_path, changes, message):
        with pytest.raises(ModelFileError, match=message):
            open_person_detector(yolox_file(tmp_path / "y.onnx", **changes))

    def test_answers_against_the_manifest(self, tmp_path):
        rows = published.yolox_rows(PEOPLE, SCORES, SIZE, classes=3)
        few = published.embed(published.yolox(tmp_path / "few.onnx", rows[:-1], SIZE), manifest())
        with pytest.raises(ModelFileError, match=r"few.onnx: 'output' answers \(1, 251, 8\), "
                                                 r"its manifest says \(1, 252, 6 or more\)"):
            open_person_detector(few).detect(picture())
        path = published.embed(published.yolox(tmp_path / "y.onnx", rows, SIZE),
                               manifest(person_class=7))
        with pytest.raises(ModelFileError, match="13 or more"):
            open_person_detector(path).detect(picture())

    def test_arguments(self, tmp_path):
        detector = open_person_detector(yolox_file(tmp_path / "y.onnx"))
        for image in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8),
                      np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)):
            with pytest.raises(ValueError, match="image must be uint8"):
                detector.detect(image)
        with pytest.raises(ValueError, match="channel_order must be bgr or rgb, got 'gray'"):
            detector.detect(picture(), "gray")
        with pytest.raises(ValueError, match="score_threshold must be 0 to 1, got 2"):
            detector.detect(picture(), score_threshold=2)
        with pytest.raises(ValueError, match="max_people must be at least 1, got 0"):
            detector.detect(picture(), max_people=0)

    def test_no_person(self, tmp_path):
        path = yolox_file(tmp_path / "y.onnx", np.zeros((0, 4)), np.zeros(0))
        detector = open_person_detector(path)
        detector.warm_up(2)
        assert detector.detect(picture()) == []
        detector.close()


def test_rtmlib_finds_the_same(tmp_path):
    """The peer's own YOLOX class on the same file and picture."""
    rtmlib = pytest.importorskip("rtmlib", reason="the peer is not installed")
    size = (640, 640)
    for seed in range(4):
        boxes, scores = published.random_people(seed)
        rows = published.yolox_rows(boxes, scores, size, labels=seed % 2 * 5)
        path = published.yolox(tmp_path / "y.onnx", rows, size)
        peer = rtmlib.YOLOX(str(path), size, det_mode="multiclass", score_thr=0.3)
        image = picture(1280, 720, seed)
        theirs, labels = peer(image)
        theirs = np.asarray(theirs).reshape(-1, 4)[np.asarray(labels) == 0]
        own = open_person_detector(published.embed(path, manifest(input_size=size)))
        found = edges(own.detect(image, max_people=100))
        theirs = np.clip(theirs, 0, [1280, 720] * 2)
        theirs = theirs[(theirs[:, 2:] - theirs[:, :2]).min(axis=1) >= 1]
        assert len(found) == len(theirs)
        if len(found):
            best = [np.max(iou(box, theirs)) for box in found]
            assert min(best) > 0.9999
