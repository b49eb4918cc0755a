"""ONNX models of a few kilobytes with constant answers, and a scene that they are true for.

The networks look at nothing: whatever the image, the detector answers with the boxes of the scene
and the pose network with the exact votes for its poses. So a test knows every number that must
come out, without training, torch or files. There is one instance per class, since all crops of a
batch get the same answer.

    scene = example_scene()
    pose_model, detector = make_models(tmp_path, scene)
    ObjectPoseEstimator(pose_model, detector).estimate(scene.image(), scene.camera)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kd_pose.boxes import points_box, xywh_from_xyxy, xyxy_from_xywh
from kd_pose.camera import Camera
from kd_pose.crop import apply_affine, box_affine, letterbox_affine
from kd_pose.geometry import box_corners, make_pose, rotation_from_vector, transform_points
from kd_pose.manifest import METADATA_KEY, Manifest, ObjectSpec
from kd_pose.votes import VoteGrid, encode_points

MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)
CELLS_PER_INSTANCE = 6


@dataclass
class Scene:
    """One pose per object. camera: of the image as delivered, distortion included."""

    camera: Camera
    specs: tuple[ObjectSpec, ...]
    poses: tuple[np.ndarray, ...]
    noise: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def corners_px(self, index: int) -> np.ndarray:
        """Projected box corners (8, 2) of an object, image px."""
        spec = self.specs[index]
        corners = box_corners(spec.box_min, spec.box_max)
        return self.camera.project(transform_points(self.poses[index], corners))

    def box_xywh(self, index: int) -> np.ndarray:
        """Bounding box (4,) of the projected corners, image px."""
        return xywh_from_xyxy(points_box(self.corners_px(index)))

    def image(self) -> np.ndarray:
        """Any picture of the right size, BGR uint8: noise, so that nothing can hide in it."""
        shape = (self.camera.height, self.camera.width, 3)
        return self.noise.integers(0, 256, shape, dtype=np.uint8)


def example_camera(width: int = 640, height: int = 480, distorted: bool = False) -> Camera:
    K = np.array([[0.9 * width, 0, width / 2 - 3], [0, 0.9 * width, height / 2 + 2], [0, 0, 1]])
    if distorted:
        return Camera(K, width, height, "plumb_bob", (-0.25, 0.08, 0.001, -0.0005, 0.01))
    return Camera(K, width, height)


def example_specs() -> tuple[ObjectSpec, ObjectSpec]:
    """A block whose mesh origin is not its centre, and a can with a continuous symmetry."""
    block = ObjectSpec(
        "block", 0.15, (-0.02, -0.03, 0.0), (0.06, 0.05, 0.1), mesh_uri="package://demo/block.ply"
    )
    can = ObjectSpec(
        "can",
        0.14,
        (-0.035, -0.035, -0.06),
        (0.035, 0.035, 0.06),
        symmetries_continuous=(((0.0, 0.0, 1.0), (0.0, 0.0, 0.0)),),
    )
    return block, can


def example_scene(camera: Camera | None = None) -> Scene:
    """The two objects side by side in front of the camera, at 0.6 and 0.7 m."""
    poses = (
        make_pose(rotation_from_vector((1.9, 0.4, -0.3)), (-0.12, 0.02, 0.6)),
        make_pose(rotation_from_vector((1.2, -0.5, 0.8)), (0.14, -0.03, 0.7)),
    )
    return Scene(camera or example_camera(), example_specs(), poses)


def make_models(folder: str | Path, scene: Scene, **manifest_changes) -> tuple[Path, Path]:
    """Pose model and detector of a scene in `folder` -> their paths."""
    folder = Path(folder)
    return (
        make_pose_model(folder / "pose.onnx", scene, **manifest_changes),
        make_detector_model(folder / "detector.onnx", scene),
    )


def make_pose_model(path: str | Path, scene: Scene, score: float = 0.9, **changes) -> Path:
    """Votes that are true in a crop around `scene.box_xywh(index)` for a box of that class."""
    manifest = _manifest("object_votes", scene, (128, 128), (8, 16, 32), 8, changes)
    targets = []
    for index in range(len(scene.specs)):
        M = box_affine(scene.box_xywh(index), manifest.input_size, manifest.crop_pad)
        targets.append(apply_affine(M, scene.corners_px(index)))
    # Each crop is decoded for one class, so here classes may have their cells in the same place.
    return _write(path, manifest, np.array(targets), score, share_cells=True)


def make_detector_model(path: str | Path, scene: Scene, score: float = 0.8, **changes) -> Path:
    """Boxes of the scene in the letterboxed image of `scene.camera`."""
    manifest = _manifest("object_detector", scene, (192, 160), (8, 16, 32), 2, changes)
    M = letterbox_affine((scene.camera.width, scene.camera.height), manifest.input_size)
    boxes = [xyxy_from_xywh(scene.box_xywh(i)).reshape(2, 2) for i in range(len(scene.specs))]
    return _write(path, manifest, apply_affine(M, np.array(boxes)), score, share_cells=False)


def _manifest(task, scene, input_size, strides, num_keypoints, changes) -> Manifest:
    values = dict(
        task=task,
        input_size=input_size,
        mean=MEAN,
        std=STD,
        channel_order="rgb",
        strides=strides,
        anchor_scale=4.0,
        num_keypoints=num_keypoints,
        objects=scene.specs,
        covariance_scale=1.0,
        producer="kd_pose tests",
    )
    return Manifest(**{**values, **changes})


def _write(
    path: str | Path, manifest: Manifest, targets: np.ndarray, score: float, share_cells: bool
) -> Path:
    """targets: (C, K, 2) input px, what the cells nearest to their middle vote for."""
    grid = VoteGrid(manifest.input_size, manifest.strides, manifest.anchor_scale)
    classes, keypoints = targets.shape[:2]
    scores = np.full((grid.num_cells, classes), 0.01, dtype=np.float32)
    offsets = np.zeros((grid.num_cells, classes, keypoints, 2), dtype=np.float32)
    free = np.ones(grid.num_cells, dtype=bool)
    for index, points in enumerate(targets):
        distance = np.linalg.norm(grid.centers - points.mean(axis=0), axis=1)
        cells = np.argsort(np.where(free, distance, np.inf), kind="stable")[:CELLS_PER_INSTANCE]
        free[cells] = share_cells
        scores[cells, index] = score
        offsets[cells, index] = encode_points(
            grid, cells, np.broadcast_to(points, (len(cells), keypoints, 2))
        )
    width, height = manifest.input_size
    write_onnx(path, (height, width), scores, offsets, {METADATA_KEY: manifest.to_json()})
    return Path(path)


def write_onnx(
    path: str | Path,
    input_hw: tuple[int, int],
    scores: np.ndarray,
    offsets: np.ndarray,
    metadata: dict[str, str],
) -> None:
    """A vote network that answers `scores` (N, C) and `offsets` (N, C, K, 2)."""
    write_constants(path, input_hw, {"scores": scores, "offsets": offsets}, metadata)


def write_constants(
    path: str | Path,
    input_hw: tuple[int, int],
    answers: dict[str, np.ndarray],
    metadata: dict[str, str],
) -> None:
    """image (batch, 3, H, W) -> `answers` by name, repeated for every image of the batch."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("Shape", ["image"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["batch"], axis=0),
    ]
    constants = [numpy_helper.from_array(np.array([0], dtype=np.int64), "zero")]
    outputs = []
    for name, value in answers.items():
        constants.append(numpy_helper.from_array(value.astype(np.float32)[None], f"{name}_value"))
        constants.append(
            numpy_helper.from_array(np.array(value.shape, dtype=np.int64), f"{name}_size")
        )
        nodes.append(helper.make_node("Concat", ["batch", f"{name}_size"], [f"{name}_shape"],
                                      axis=0))
        nodes.append(helper.make_node("Expand", [f"{name}_value", f"{name}_shape"], [name]))
        outputs.append(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *value.shape])
        )
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, *input_hw])
    graph = helper.make_graph(nodes, "constants", [image], outputs, constants)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="kd_pose tests"
    )
    model.ir_version = 9  # readable by every onnxruntime since 1.16
    helper.set_model_props(model, metadata)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
