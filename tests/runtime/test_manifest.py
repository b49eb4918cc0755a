"""kd_pose.manifest: strict, and found in ONNX files without onnx."""

import json
import subprocess
import sys

import numpy as np
import pytest

from kd_pose.codes import CodeTable, code_table_to_text
from kd_pose.manifest import (
    FORMAT_VERSION,
    METADATA_KEY,
    DenseManifest,
    Manifest,
    ModelFileError,
    ObjectSpec,
    WholebodyManifest,
    manifest_from_json,
    read_manifest,
    require_task,
)

CAN = ObjectSpec(
    "can",
    0.14,
    (-0.035, -0.035, -0.06),
    (0.035, 0.035, 0.06),
    symmetries_discrete=(tuple(np.diag([1.0, -1.0, -1.0, 1.0]).reshape(-1)),),
    symmetries_continuous=(((0.0, 0.0, 1.0), (0.0, 0.0, 0.0)),),
    mesh_uri="package://demo/can.ply",
)
BOX = ObjectSpec("box", 0.2, (-0.1, -0.05, -0.02), (0.1, 0.05, 0.02))


def manifest(**changes):
    values = dict(
        task="object_votes",
        input_size=(256, 192),
        mean=(123.675, 116.28, 103.53),
        std=(58.395, 57.12, 57.375),
        channel_order="rgb",
        strides=(8, 16, 32, 64),
        anchor_scale=4.0,
        num_keypoints=8,
        objects=(CAN, BOX),
        training={"hours": 1.5, "data": ["renders"]},
        metrics={"add_0.1d": {"can": 0.9}},
        producer="kd_pose 0.1",
    )
    return Manifest(**{**values, **changes})


def table_text(spec, bits=4, scale=1.0):
    """A code table of 2**bits points in an object's box."""
    points = np.random.default_rng(0).uniform(spec.box_min, spec.box_max, (1 << bits, 3))
    return code_table_to_text(CodeTable(scale * points))


def dense_manifest(**changes):
    values = dict(
        task="object_codes",
        input_size=(128, 96),
        mean=(123.675, 116.28, 103.53),
        std=(58.395, 57.12, 57.375),
        channel_order="rgb",
        objects=(CAN, BOX),
        code_tables=(table_text(CAN), table_text(BOX)),
    )
    return DenseManifest(**{**values, **changes})


class TestJson:
    def test_round_trip(self):
        original = manifest()
        assert manifest_from_json(original.to_json(), "here") == original

    def test_lists_and_numpy_numbers_become_plain(self):
        made = manifest(input_size=[256, np.int64(192)], mean=np.zeros(3), strides=np.array([8]))
        assert made.input_size == (256, 192) and made.strides == (8,)
        json.loads(made.to_json())

    def test_box_size_and_center(self):
        spec = ObjectSpec("a", 0.1, (0.0, 0, 0), (0.02, 0.04, 0.06))
        assert np.allclose(spec.box_size, (0.02, 0.04, 0.06))
        assert np.allclose(spec.box_center, (0.01, 0.02, 0.03))

    @pytest.mark.parametrize(
        "edit, message",
        [
            (lambda d: d.update(colour="red"), "unknown key.*colour"),
            (lambda d: d.pop("strides"), "missing key.*strides"),
            (lambda d: d["objects"][0].pop("diameter"), "'can'.*missing key.*diameter"),
            (lambda d: d["objects"][1].update(diameter=200.0), "millimetres"),
            (lambda d: d["objects"][1].update(diameter="big"), "'box': diameter"),
            (lambda d: d["objects"][1].update(box_min=[1, 2]), "'box': box_min"),
            (lambda d: d["objects"][1].update(name="can"), "different names"),
            (lambda d: d["objects"][0].update(symmetries_discrete=[[1, 2]]),
             "symmetries_discrete"),
            (lambda d: d["objects"][0].update(symmetries_continuous=[[1, 2, 3]]),
             "symmetries_continuous"),
            (lambda d: d.update(objects=[]), "at least one"),
            (lambda d: d.update(objects=[3]), "JSON objects"),
            (lambda d: d.update(task="segmentation"), "task must be one of"),
            (lambda d: d.update(channel_order="gbr"), "channel_order"),
            (lambda d: d.update(input_size=[0, 5]), "input_size"),
            (lambda d: d.update(input_size=[256.5, 5]), "input_size"),
            (lambda d: d.update(std=[1, 0, 1]), "std"),
            (lambda d: d.update(strides=[16, 8]), "strides"),
            (lambda d: d.update(num_keypoints=2), "num_keypoints"),
            (lambda d: d.update(score_threshold=1.5), "score_threshold"),
            (lambda d: d.update(covariance_scale=-1), "covariance_scale"),
            (lambda d: d.update(cells_per_instance=True), "cells_per_instance"),
            (lambda d: d.update(training=3), "training"),
            (lambda d: d.update(format_version=FORMAT_VERSION + 1), "format version 2"),
            (lambda d: d.pop("format_version"), "format version None"),
        ],
    )
    def test_errors_name_the_source_and_the_key(self, edit, message):
        data = json.loads(manifest().to_json())
        edit(data)
        with pytest.raises(ModelFileError, match=f"^robot.onnx: .*{message}"):
            manifest_from_json(json.dumps(data), "robot.onnx")

    @pytest.mark.parametrize("text", ["", "{", "[1]", "null"])
    def test_not_json(self, text):
        with pytest.raises(ModelFileError, match="^x: "):
            manifest_from_json(text, "x")

    def test_an_error_is_a_value_error(self):
        assert issubclass(ModelFileError, ValueError)

    def test_require_task(self):
        require_task(manifest(), ("object_codes", "object_votes"), "m.onnx")
        with pytest.raises(ModelFileError, match="m.onnx.*'object_votes'.*'object_detector'"):
            require_task(manifest(), ("object_detector",), "m.onnx")
        with pytest.raises(ModelFileError, match="needed is 'object_codes' or 'object_detector'"):
            require_task(manifest(), ("object_codes", "object_detector"), "m.onnx")


class TestDense:
    def test_round_trip(self):
        original = dense_manifest(stride=4, max_pairs=99, covariance_scale=2.5)
        back = manifest_from_json(original.to_json(), "here")
        assert back == original and isinstance(back, DenseManifest)
        assert back.score_threshold == 0.5

    def test_tables_are_those_of_the_objects(self):
        tables = dense_manifest().tables()
        assert [table.bits for table in tables] == [4, 4]
        for table, spec in zip(tables, (CAN, BOX)):
            assert (table.points >= np.array(spec.box_min) - 1e-6).all()
            assert (table.points <= np.array(spec.box_max) + 1e-6).all()

    @pytest.mark.parametrize(
        "edit, message",
        [
            (lambda d: d.update(strides=[2]), "unknown key.*strides"),
            (lambda d: d.pop("code_tables"), "missing key.*code_tables"),
            (lambda d: d["code_tables"].pop(), "one per object, got 1 for 2"),
            (lambda d: d.update(code_tables=d["code_tables"][0]), "list of texts"),
            (lambda d: d.update(code_tables=[1, 2]), "list of texts"),
            (lambda d: d.update(code_tables=3), "code_tables must be a list of texts"),
            (lambda d: d["code_tables"].reverse(), "'can': the code table goes from .* another"),
            (lambda d: d.update(code_tables=["x", "y"]), "'can': the code table is not JSON"),
            (lambda d: d["code_tables"].__setitem__(1, table_text(BOX, scale=1000.0)),
             "'box': the code table goes from .* millimetres"),
            (lambda d: d["code_tables"].__setitem__(1, table_text(BOX, bits=5)),
             r"same number of bits, got \[4, 5\]"),
            (lambda d: d.update(stride=0), "stride"),
            (lambda d: d.update(stride=5), r"\(128, 96\) must be multiples of the stride 5"),
            (lambda d: d.update(max_pairs=0), "max_pairs"),
            (lambda d: d.update(task="object_votes"), "unknown key.*code_tables"),
            (lambda d: d.update(task=["object_codes"]), "task must be one of"),
            (lambda d: d.pop("task"), "task must be one of .*object_codes, .*got None"),
        ],
    )
    def test_errors_name_the_source_and_the_key(self, edit, message):
        data = json.loads(dense_manifest().to_json())
        edit(data)
        with pytest.raises(ModelFileError, match=f"^robot.onnx: .*{message}"):
            manifest_from_json(json.dumps(data), "robot.onnx")


def wholebody_manifest(**changes):
    values = dict(
        task="wholebody",
        input_size=(192, 256),
        mean=(123.675, 116.28, 103.53),
        std=(58.395, 57.12, 57.375),
        channel_order="rgb",
    )
    return WholebodyManifest(**{**values, **changes})


class TestWholebody:
    def test_round_trip(self):
        original = wholebody_manifest(
            input_name="input", output_names=["x", "y"], score_scale=10, metrics={"AP": 0.6}
        )
        back = manifest_from_json(original.to_json(), "here")
        assert back == original and isinstance(back, WholebodyManifest)
        assert back.crop_pad == 1.25 and back.split_ratio == 2.0
        assert back.skeleton == "coco_wholebody_133" and back.output_names == ("x", "y")

    @pytest.mark.parametrize(
        "edit, message",
        [
            (lambda d: d.update(objects=[]), "unknown key.*objects"),
            (lambda d: d.pop("skeleton"), "missing key.*skeleton"),
            (lambda d: d.update(skeleton="halpe26"), "skeleton must be one of coco_wholebody_133"),
            (lambda d: d.update(skeleton=["coco_wholebody_133"]), "skeleton must be one of"),
            (lambda d: d.update(output_names=["simcc_x"]), "output_names must be two different"),
            (lambda d: d.update(output_names=["a", "a"]), "output_names must be two different"),
            (lambda d: d.update(output_names="ab"), "output_names must be a list"),
            (lambda d: d.update(input_name=""), "input_name must be a text"),
            (lambda d: d.update(crop_pad=0), "crop_pad"),
            (lambda d: d.update(score_scale=-1.0), "score_scale"),
            (lambda d: d.update(split_ratio=2.003), "no whole number of bins"),
            (lambda d: d.update(std=[1, 0, 1]), "std must be positive"),
        ],
    )
    def test_errors_name_the_source_and_the_key(self, edit, message):
        data = json.loads(wholebody_manifest().to_json())
        edit(data)
        with pytest.raises(ModelFileError, match=f"^robot.onnx: .*{message}"):
            manifest_from_json(json.dumps(data), "robot.onnx")

    def test_other_sizes_need_other_bins(self):
        assert wholebody_manifest(input_size=(96, 128), split_ratio=2.5).split_ratio == 2.5


class TestFile:
    @pytest.fixture
    def model(self, tmp_path):
        pytest.importorskip("onnx")
        from helpers.tiny_models import write_onnx

        path = tmp_path / "model.onnx"
        text = {"other": "thing", METADATA_KEY: manifest().to_json()}
        write_onnx(path, (16, 16), np.ones((300, 2)), np.ones((300, 2, 8, 2)), text)
        return path

    def test_is_found(self, model):
        assert read_manifest(model) == manifest()
        assert read_manifest(str(model)) == manifest()

    def test_needs_neither_onnx_nor_an_engine(self, model):
        code = (
            "import sys\n"
            "for name in ('onnx', 'onnxruntime', 'openvino', 'torch', 'google'):\n"
            "    sys.modules[name] = None\n"
            "from kd_pose.manifest import read_manifest\n"
            f"print(read_manifest({str(model)!r}).task)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.stdout.strip() == "object_votes", done.stderr

    def test_every_truncation_is_noticed(self, model, tmp_path):
        data = model.read_bytes()
        cut = tmp_path / "cut.onnx"
        for length in [*range(0, 200), len(data) // 2, *range(len(data) - 2000, len(data))]:
            cut.write_bytes(data[:length])
            try:
                assert read_manifest(cut) == manifest()  # only the version numbers at the end
                assert length > len(data) - 60
            except ModelFileError as error:
                assert str(cut) in str(error)

    def test_truncated_says_so(self, model):
        data = model.read_bytes()
        model.write_bytes(data[: len(data) // 3])
        with pytest.raises(ModelFileError, match="model.onnx: .*truncated"):
            read_manifest(model)

    def test_missing(self, tmp_path):
        with pytest.raises(ModelFileError, match="nowhere.onnx: no such"):
            read_manifest(tmp_path / "nowhere.onnx")
        with pytest.raises(ModelFileError, match="is a folder, needed is the .onnx file"):
            read_manifest(tmp_path)

    def test_empty(self, tmp_path):
        path = tmp_path / "empty.onnx"
        path.write_bytes(b"")
        with pytest.raises(ModelFileError, match="empty"):
            read_manifest(path)

    def test_another_kind_of_file(self, tmp_path):
        path = tmp_path / "photo.onnx"
        rng = np.random.default_rng(0)
        for _ in range(50):
            path.write_bytes(rng.integers(0, 256, 500, dtype=np.uint8).tobytes())
            with pytest.raises(ModelFileError, match="photo.onnx"):
                read_manifest(path)
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
        with pytest.raises(ModelFileError, match="photo.onnx"):
            read_manifest(path)

    def test_without_a_manifest(self, tmp_path):
        pytest.importorskip("onnx")
        from helpers.tiny_models import write_onnx

        path = tmp_path / "plain.onnx"
        write_onnx(path, (16, 16), np.ones((3, 2)), np.ones((3, 2, 8, 2)), {"a": "b"})
        with pytest.raises(ModelFileError, match="plain.onnx: no 'kd_pose.manifest'"):
            read_manifest(path)
