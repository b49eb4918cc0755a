"""kd-pose-train import: published files recognised, copied byte by byte, run by the runtime."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from helpers import published_models as published
from helpers.tiny_simcc import tiny_net
from kd_pose.manifest import PersonDetectorManifest, WholebodyManifest, read_manifest
from kd_pose.person_detector import open_person_detector
from kd_pose.results import Detection2D
from kd_pose.simcc_network import SimccNetwork
from kd_pose.wholebody_pose import WholebodyPoseEstimator
from kd_pose_training import cli
from kd_pose_training.export_wholebody import MMPOSE_BORDER, export_wholebody
from kd_pose_training.import_model import import_model
from kd_pose_training.onnx_graph import OnnxFileError, OnnxGraph
from kd_pose_training.recognise import ImportOptions

torch.set_num_threads(1)
SIZE = (128, 96)
PEOPLE = np.array([[10.0, 12, 40, 90], [60, 8, 100, 80]])
SCORES = np.array([0.9, 0.8])
IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))


def rows(classes=80, size=SIZE):
    return published.yolox_rows(PEOPLE, SCORES, size, classes=classes)


def dense_boxes(classes=1, size=SIZE):
    """Boxes and scores for every cell, two of them people."""
    count = published.cells(size)
    boxes, scores = np.zeros((count, 4)), np.zeros((count, classes))
    boxes[:2], scores[:2, 0] = PEOPLE, SCORES
    return boxes, scores


def maps(classes=1, size=SIZE):
    logits = [np.full((classes, size[1] // s, size[0] // s), -9.0) for s in published.STRIDES]
    distances = [np.ones((4, *level.shape[1:])) for level in logits]
    logits[2][0, 1, 2] = 2.0
    return logits, distances


def logits(count=133, size=(192, 256), bins=(2, 2)):
    rng = np.random.default_rng(0)
    return tuple(rng.normal(size=(count, ratio * side)) for side, ratio in zip(size, bins))


def take(source, options=None, name="out.onnx"):
    return import_model(source, source.with_name(name), options)


def picture(width=SIZE[0], height=SIZE[1]):
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)


class TestPose:
    @pytest.mark.parametrize("size", [(192, 256), (288, 384)])
    def test_published_sizes(self, tmp_path, size):
        source = published.simcc(tmp_path / "dw-ll_ucoco_384.onnx", logits(size=size), size)
        imported = take(source)
        manifest = read_manifest(imported.path)
        assert manifest == imported.manifest and isinstance(manifest, WholebodyManifest)
        assert manifest.input_size == size and manifest.split_ratio == 2
        assert (manifest.mean, manifest.std, manifest.channel_order) == (*IMAGENET, "rgb")
        assert manifest.input_name == "input"
        assert manifest.output_names == ("simcc_x", "simcc_y")
        assert manifest.border_value == 0 and manifest.score_scale == 1
        notes = manifest.training
        assert notes["source"] == "dw-ll_ucoco_384.onnx" and notes["batch"] == "any"
        assert notes["graph"] == "pytorch 1.13.1" and notes["opset"] == 13
        network = SimccNetwork(imported.path, "wholebody", threads=1)
        x, y = network.run(np.zeros((3, 3, *size[::-1]), np.float32))
        assert x.shape == (3, 133, 2 * size[0]) and np.allclose(x[2], logits(size=size)[0])

    def test_one_picture_at_a_time(self, tmp_path):
        source = published.simcc(tmp_path / "a.onnx", logits(), batch=1)
        imported = take(source)
        assert imported.manifest.training["batch"] == 1
        network = SimccNetwork(imported.path, "wholebody", threads=1)
        assert network.run(np.zeros((2, 3, 256, 192), np.float32))[0].shape == (2, 133, 384)

    def test_rtmw_scores_are_ten_times_as_large(self, tmp_path):
        imported = take(published.simcc(tmp_path / "a.onnx", logits(), shuffle=True))
        assert imported.manifest.score_scale == 10
        assert imported.manifest.training["kind"] == "rtmw" and "RTMW" in imported.reasons[0]
        again = take(tmp_path / "a.onnx", ImportOptions(kind="rtmpose"))
        assert again.manifest.score_scale == 1

    @pytest.mark.parametrize("names", [("input", "y", "x"), ("images", "1873", "1874")])
    def test_other_names(self, tmp_path, names):
        """Which output is which axis is seen by the bins."""
        x, y = logits()
        source = published.simcc(tmp_path / "a.onnx", (y, x), names=names)
        manifest = take(source).manifest
        assert manifest.input_name == names[0]
        assert manifest.output_names == (names[2], names[1])

    def test_other_bins(self, tmp_path):
        source = published.simcc(tmp_path / "a.onnx", logits(bins=(3, 3)))
        assert take(source).manifest.split_ratio == 3

    def test_normalisation_inside(self, tmp_path):
        source = published.simcc(tmp_path / "a.onnx", logits(), stem="normalise")
        with pytest.raises(OnnxFileError, match=r"a.onnx: calculates with the pictures "
                                                r"\(Sub, Div\) before its first convolution"):
            take(source)
        options = ImportOptions(mean=(0, 0, 0), std=(1, 1, 1), channel_order="bgr")
        manifest = take(source, options).manifest
        assert manifest.mean == (0, 0, 0) and manifest.channel_order == "bgr"

    @pytest.mark.parametrize("count, what", [(17, r"17 keypoints \(COCO's body\)"),
                                             (26, r"26 keypoints \(body and feet \(Halpe26\)\)"),
                                             (21, "a hand"), (134, "has 134 keypoints;")])
    def test_other_skeletons_are_refused(self, tmp_path, count, what):
        source = published.simcc(tmp_path / "a.onnx", logits(count))
        with pytest.raises(OnnxFileError, match=f"{what}.* needs the 133 of COCO-WholeBody"):
            take(source)

    def test_sizes_that_do_not_fit(self, tmp_path):
        source = published.simcc(tmp_path / "a.onnx", logits(size=(192, 250)))
        with pytest.raises(OnnxFileError, match="simcc_x has 384 bins and simcc_y 500 for an "
                                                "input of 192x256: 2 and 1.95312 a pixel"):
            take(source)

    def test_a_batch_that_is_only_said_to_be_free(self, tmp_path):
        """The graph answers the first picture only, whatever its outputs are declared as."""
        graph = published.Graph()
        nothing = graph.nothing("input", "conv")
        outputs = {}
        for name, value in zip(("simcc_x", "simcc_y"), logits()):
            graph.node("Add", [graph.constant(value.astype(np.float32)[None]), nothing], name)
            outputs[name] = ("batch", *value.shape)
        source = graph.save(tmp_path / "a.onnx", {"input": ("batch", 3, 256, 192)}, outputs)
        with pytest.raises(OnnxFileError, match=r"two at once differently from one \(simcc_x"):
            take(source)

    def test_a_batch_that_is_fixed_inside(self, tmp_path):
        graph = published.Graph()
        one = graph.constant(np.array([1, 3, 256, 192], np.int64))
        nothing = graph.nothing(graph.node("Reshape", ["input", one]), "conv")
        outputs = {}
        for name, value in zip(("simcc_x", "simcc_y"), logits()):
            graph.node("Add", [graph.constant(value.astype(np.float32)[None]), nothing], name)
            outputs[name] = ("batch", *value.shape)
        source = graph.save(tmp_path / "a.onnx", {"input": ("batch", 3, 256, 192)}, outputs)
        with pytest.raises(OnnxFileError, match="a.onnx: leaves the number of pictures open, but "
                                                "does not run on two at once; export it with a "
                                                "batch of 1"):
            take(source)

    @pytest.mark.parametrize("wrong", [np.nan, np.inf])
    def test_answers_that_are_no_numbers(self, tmp_path, wrong):
        x, y = logits()
        source = published.simcc(tmp_path / "a.onnx", (x, np.full_like(y, wrong)))
        with pytest.raises(OnnxFileError, match="a.onnx: simcc_y answers noise with values that "
                                                "are not finite"):
            take(source)


class TestDetectors:
    def found(self, path, size=SIZE):
        found = open_person_detector(path, threads=1).detect(picture(*size))
        return np.array([item.box_xywh for item in found]).reshape(-1, 4)

    @pytest.mark.parametrize("classes", [80, 1])
    def test_yolox_as_megvii_exports_it(self, tmp_path, classes):
        source = published.yolox(tmp_path / "yolox_l.onnx", rows(classes), SIZE)
        imported = take(source)
        manifest = imported.manifest
        assert isinstance(manifest, PersonDetectorManifest)
        assert (manifest.architecture, manifest.layout) == ("yolox", "yolox_grid")
        assert (manifest.mean, manifest.std, manifest.channel_order) == ((0,) * 3, (1,) * 3, "bgr")
        assert manifest.nms_threshold == 0.45 and manifest.score_threshold == 0.3
        assert f"class 0 of {classes}" in imported.reasons[-1]
        assert np.allclose(self.found(imported.path)[0], [9.5, 11.5, 30, 78], atol=1e-3)

    def test_yolox_decoded_inside(self, tmp_path):
        grid = take(published.yolox(tmp_path / "a.onnx", rows(), SIZE))
        pixels = take(published.yolox(tmp_path / "b.onnx", rows(), SIZE, decoded=True),
                      name="c.onnx")
        assert pixels.manifest.layout == "yolox_boxes"
        assert np.allclose(self.found(grid.path), self.found(pixels.path), atol=1e-3)

    @pytest.mark.parametrize("stem, kind, order", [("focus", "yolox", "bgr"),
                                                   ("attention", "rtmdet", "bgr")])
    @pytest.mark.parametrize("inside", [True, False])
    def test_mmdeploy_with_and_without_suppression(self, tmp_path, stem, kind, order, inside):
        if inside:
            source = published.with_suppression(tmp_path / "a.onnx", PEOPLE, SCORES[:, None], SIZE,
                                                stem=stem)
        else:
            source = published.boxes_scores(tmp_path / "a.onnx", *dense_boxes(), SIZE, stem=stem,
                                            swap=kind == "yolox")
        manifest = take(source).manifest
        assert manifest.architecture == kind and manifest.channel_order == order
        assert manifest.layout == ("dets_labels" if inside else "boxes_scores")
        assert manifest.output_names == (("dets", "labels") if inside else ("boxes", "scores"))
        assert manifest.mean == ((0, 0, 0) if kind == "yolox" else IMAGENET[0][::-1])
        assert manifest.std == ((1, 1, 1) if kind == "yolox" else IMAGENET[1][::-1])
        assert manifest.nms_threshold == (0.45 if kind == "yolox" else 0.6)
        found = self.found(source.with_name("out.onnx"))
        assert np.allclose(found, [[9.5, 11.5, 30, 78], [59.5, 7.5, 40, 72]], atol=1e-4)

    def test_rtmdet_maps(self, tmp_path):
        manifest = take(published.rtmdet_maps(tmp_path / "a.onnx", *maps(), SIZE)).manifest
        assert (manifest.architecture, manifest.layout) == ("rtmdet", "rtmdet_maps")
        assert manifest.output_names[0] == "cls_scores.0"
        assert manifest.output_names[5] == "bbox_preds.2"
        assert np.allclose(self.found(tmp_path / "out.onnx"), [[31.5, -0.5, 64, 64]])

    def test_size_left_open(self, tmp_path):
        source = published.with_suppression(tmp_path / "a.onnx", PEOPLE, SCORES[:, None],
                                            open_size=True)
        with pytest.raises(OnnxFileError, match="leaves the size of its input .*any, 3, any, any"
                                                ".* open; say --input-size"):
            take(source)
        manifest = take(source, ImportOptions(input_size=(416, 320))).manifest
        assert manifest.input_size == (416, 320) and manifest.training["batch"] == "any"
        with pytest.raises(OnnxFileError, match=r"a.onnx: input_size \(100, 100\) must be"):
            take(source, ImportOptions(input_size=(100, 100)))

    def test_what_the_user_says(self, tmp_path):
        source = published.yolox(tmp_path / "a.onnx", rows(), SIZE)
        manifest = take(source, ImportOptions(
            kind="yolox", person_class=3, score_threshold=0.5, nms_threshold=0.7,
            mean=(1, 2, 3), std=(4, 5, 6), channel_order="rgb")).manifest
        assert (manifest.person_class, manifest.score_threshold, manifest.nms_threshold) == (
            3, 0.5, 0.7)
        assert (manifest.mean, manifest.std, manifest.channel_order) == (
            (1, 2, 3), (4, 5, 6), "rgb")
        with pytest.raises(OnnxFileError, match="a.onnx: has 80 classes, so people cannot be "
                                                "class 80"):
            take(source, ImportOptions(person_class=80))
        with pytest.raises(OnnxFileError, match="a.onnx: score_threshold must be 0.0 to 1.0"):
            take(source, ImportOptions(score_threshold=7))
        with pytest.raises(OnnxFileError, match="its input is 128x96, not 640x640"):
            take(source, ImportOptions(input_size=(640, 640)))
        with pytest.raises(OnnxFileError, match="outputs are those of yolox, not of rtmpose"):
            take(source, ImportOptions(kind="rtmpose"))
        with pytest.raises(ValueError, match="kind must be one of .*, got 'yolov8'"):
            ImportOptions(kind="yolov8")

    def test_family_that_the_graph_does_not_tell(self, tmp_path):
        source = published.with_suppression(tmp_path / "a.onnx", PEOPLE, SCORES[:, None], SIZE,
                                            stem="conv")
        with pytest.raises(OnnxFileError, match="is it YOLOX or RTMDet.*sees 3 channels .*without "
                                                "channel attention.*--kind yolox"):
            take(source)
        assert take(source, ImportOptions(kind="rtmdet")).manifest.architecture == "rtmdet"

    @pytest.mark.parametrize("changes, message", [
        ({"in_pixels": False}, "bbox_preds.0 does not end in a product with its stride 8"),
        ({"probabilities": True}, "cls_scores.0 is a probability already"),
    ])
    def test_maps_of_another_head(self, tmp_path, changes, message):
        source = published.rtmdet_maps(tmp_path / "a.onnx", *maps(), SIZE, **changes)
        with pytest.raises(OnnxFileError, match=message):
            take(source)

    def test_other_rows_than_yolox_has(self, tmp_path):
        source = published.yolox(tmp_path / "a.onnx", np.zeros((25200, 85)))
        with pytest.raises(OnnxFileError, match="output has 25200 rows of 85, but YOLOX has 8400 "
                                                "for an input of 640x640"):
            take(source)


class TestCopy:
    def test_source_then_manifest(self, tmp_path):
        """Bit-identical weights, because every byte is the source's."""
        source = published.yolox(tmp_path / "a.onnx", rows(), SIZE)
        before = source.read_bytes()
        imported = take(source)
        assert source.read_bytes() == before
        assert imported.path.read_bytes().startswith(before)
        first, second = (onnx.load(path).graph for path in (source, imported.path))
        assert first == second
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.onnx", "out.onnx"]

    def test_earlier_metadata_stays(self, tmp_path):
        source = published.yolox(tmp_path / "a.onnx", rows(), SIZE)
        model = onnx.load(source)
        model.metadata_props.add(key="author", value="somebody")
        onnx.save(model, source)
        copy = onnx.load(take(source).path)
        assert {item.key for item in copy.metadata_props} == {"author", "kd_pose.manifest"}

    def test_weights_beside_the_file_are_taken_in(self, tmp_path):
        folder = tmp_path / "in"
        folder.mkdir()
        plain = published.yolox(folder / "plain.onnx", rows(), SIZE)
        source = folder / "a.onnx"
        onnx.save(onnx.load(plain), source, save_as_external_data=True, location="a.data",
                  size_threshold=1024)
        imported = import_model(source, tmp_path / "out.onnx")
        assert OnnxGraph(source).external == ("a.data",)
        values = {tensor.name: numpy_helper.to_array(tensor)
                  for tensor in onnx.load(imported.path, load_external_data=False
                                          ).graph.initializer}
        for tensor in onnx.load(plain).graph.initializer:
            assert np.array_equal(numpy_helper.to_array(tensor), values[tensor.name])
        (folder / "a.data").unlink()
        open_person_detector(imported.path).detect(picture())
        with pytest.raises(OnnxFileError, match=r"in/a.onnx: its weights are in a.data, which is "
                                                r"not beside it"):
            import_model(source, tmp_path / "out.onnx")
        (folder / "a.data").write_bytes(b"short")
        with pytest.raises(OnnxFileError, match="a.onnx: the weights in a.data cannot be read"):
            import_model(source, tmp_path / "out.onnx")

    def test_never_the_source_itself(self, tmp_path):
        source = published.yolox(tmp_path / "a.onnx", rows(), SIZE)
        (tmp_path / "link.onnx").symlink_to(source)
        for target in (source, tmp_path / "link.onnx"):
            with pytest.raises(OnnxFileError, match="is the source itself"):
                import_model(source, target)
        with pytest.raises(OnnxFileError, match="must end in .onnx"):
            import_model(source, tmp_path / "model.bin")

    def test_a_second_time(self, tmp_path):
        imported = take(published.yolox(tmp_path / "a.onnx", rows(), SIZE))
        with pytest.raises(OnnxFileError, match=r"already has a manifest \(person_detector\)"):
            import_model(imported.path, tmp_path / "b.onnx")

    def test_an_earlier_file_survives_failure(self, tmp_path):
        (tmp_path / "out.onnx").write_bytes(b"earlier")
        with pytest.raises(OnnxFileError):
            take(published.simcc(tmp_path / "a.onnx", logits(17)))
        assert (tmp_path / "out.onnx").read_bytes() == b"earlier"
        take(published.simcc(tmp_path / "a.onnx", logits()))
        assert read_manifest(tmp_path / "out.onnx").task == "wholebody"
        assert len(list(tmp_path.iterdir())) == 2


class TestCommand:
    @pytest.mark.parametrize("option, value", [("--person-class", "0"), ("--person-class", "3"),
                                               ("--score-threshold", "7"),
                                               ("--nms-threshold", "0.5")])
    def test_options_of_detectors(self, tmp_path, capsys, option, value):
        source = published.simcc(tmp_path / "a.onnx", logits())
        out = tmp_path / "out.onnx"
        assert cli.main(["import", str(source), "-o", str(out), option, value]) == 2
        assert (f"a.onnx: is rtmpose, which gives keypoints; {option} is for detectors"
                in capsys.readouterr().err)
        assert not out.exists()

    def test_suppression_that_is_inside(self, tmp_path):
        source = published.with_suppression(tmp_path / "a.onnx", PEOPLE, SCORES[:, None])
        with pytest.raises(OnnxFileError, match="a.onnx: has its suppression inside; --nms"):
            take(source, ImportOptions(nms_threshold=0.5))

    def test_pose(self, tmp_path, capsys):
        source = published.simcc(tmp_path / "a.onnx", logits())
        out = tmp_path / "new" / "pose.onnx"
        assert cli.main(["import", str(source), "-o", str(out)]) == 0
        text = capsys.readouterr().out
        assert "rtmpose (SimCC outputs: RTMPose or DWPose)" in text
        assert "input 'input' 192x256, RGB, mean 123.675 116.28 103.53" in text
        assert "any number at once" in text and "task wholebody" in text and "model_path" in text

    def test_detector(self, tmp_path, capsys):
        source = published.with_suppression(tmp_path / "a.onnx", PEOPLE, SCORES[:, None],
                                            open_size=True)
        out = tmp_path / "det.onnx"
        assert cli.main(["import", str(source), "-o", str(out), "--kind", "yolox",
                         "--input-size", "416x416", "--score-threshold", "0.4"]) == 0
        text = capsys.readouterr().out
        assert "416x416, BGR, bytes as they are" in text and "score of 0.4 or more" in text
        assert "detector_path" in text
        assert json.loads(read_manifest(out).to_json())["score_threshold"] == 0.4

    def test_errors_are_one_line(self, tmp_path, capsys):
        source = published.simcc(tmp_path / "a.onnx", logits(17))
        assert cli.main(["import", str(source), "-o", str(tmp_path / "b.onnx")]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "has 17 keypoints" in error

    def test_size_in_words(self, capsys):
        with pytest.raises(SystemExit):
            cli.main(["import", "a.onnx", "-o", "b.onnx", "--input-size", "640"])
        assert "must be WIDTHxHEIGHT, e.g. 640x640, got '640'" in capsys.readouterr().err


def own_file_as_published(path, net):
    """The file of a network of this project without manifest, under mmdeploy's names; beside it
    the file with its manifest."""
    own = export_wholebody(net, path.with_name("own.onnx"), border_value=MMPOSE_BORDER)
    model = onnx.load(own)
    del model.metadata_props[:]
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = "input" if name == "image" else name
    model.graph.input[0].name = "input"
    onnx.save(model, path)
    return own


@pytest.mark.slow
def test_own_network_in_and_out_again(tmp_path):
    """The same picture gives the same keypoints by the file's own and the imported manifest."""
    net = tiny_net(keypoints=133, seed=3)
    with torch.no_grad():
        for value in net.head.parameters():
            value.mul_(20)
    source = tmp_path / "published.onnx"
    own = own_file_as_published(source, net)
    imported = take(source).path
    image, found = picture(240, 200), []
    boxes = [Detection2D("person", 0.9, np.array(box, float))
             for box in ((20, 30, 40, 60), (80, 10, 50, 50), (-20, 40, 60, 120))]
    for path in (own, imported):
        estimator = WholebodyPoseEstimator(path, backend="onnxruntime", device="cpu", threads=1)
        found.append(estimator.estimate(image, boxes=boxes).people)
    assert len(found[0]) == len(found[1]) == 3
    for a, b in zip(*found):
        assert np.isfinite(a.keypoints_xy).sum() > 40
        assert np.array_equal(a.keypoints_xy, b.keypoints_xy, equal_nan=True)
        assert np.array_equal(a.keypoint_scores, b.keypoint_scores) and a.score == b.score


def test_nodes_way_with_two_imported_files(tmp_path):
    """Image in, people out, with nothing but imported files."""
    x, y = np.zeros((133, 384)), np.zeros((133, 512))
    x[np.arange(133), 100 + np.arange(133)] = 0.9
    y[:, 256] = 0.8
    pose = take(published.simcc(tmp_path / "p.onnx", (x, y)), name="pose.onnx")
    detector = take(published.yolox(tmp_path / "y.onnx", rows(), SIZE), name="detector.onnx")
    estimator = WholebodyPoseEstimator(pose.path, detector.path, threads=1)
    frame = estimator.estimate(picture())
    assert len(frame.people) == 2
    person = frame.people[0]
    assert np.allclose(person.keypoint_scores, 0.8, atol=1e-6)
    # bins 2 a pixel; the box (30 x 78) times 1.25 fills the height of 256: 97.5 / 256 px a pixel
    scale = 78 * 1.25 / 256
    centre = person.box_xywh[:2] + person.box_xywh[2:] / 2
    wanted = centre[0] + ((100 + np.arange(133)) / 2 - 95.5) * scale
    assert np.allclose(person.keypoints_xy[:, 0], wanted, atol=1e-3)
