"""Training samples of whole-body networks, from the JPEG file to the loader, against mmpose's.

DWPose's strong augmentation on both sides. The picture is a real COCO photograph; a pair is an
epoch over 8 links to it, with 21 people (COCO train2017 has 150 thousand usable people in 57
thousand pictures, so 2.6 a picture) or with one each. mmpose decodes a picture for every person.
Runs where mmpose's transforms run: NumPy 1, see docs/wholebody_data.md.
"""

from __future__ import annotations

import copy
import json
import pickle
import sys
import tempfile
import types
import warnings
from pathlib import Path

import numpy as np
import torch

from benchmarks.timing import Row, interleave, row
from kd_pose.crop import box_affine
from kd_pose.simcc import SimccCodec
from kd_pose_training.data.coco_wholebody import read_coco_wholebody
from kd_pose_training.data.person_augment import stage_schedule
from kd_pose_training.data.person_dataset import PersonDataset
from kd_pose_training.data.person_sampler import person_sampler

PEERS = ("mmpose", "mmdet", "albumentations", "torchvision")
INSTALL = "in an environment of its own, see docs/wholebody_data.md"
PHOTOGRAPH = Path(__file__).parents[2] / "shared" / "data" / "coco_wholebody"
PICTURES = 8
CASES = ((21, "2.6 people a picture, as in COCO", 3.5), (8, "one person a picture", 2.0))
CODEC = SimccCodec((192, 256))
MOST_BYTES = 0.25


def run(pairs: int = 30) -> list[Row]:
    if not PHOTOGRAPH.is_dir():
        raise SystemExit(f"wholebody_data: needs the photograph in {PHOTOGRAPH}")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        return [_case(Path(folder), *case, pairs) for case in CASES]


def _case(folder: Path, people: int, what: str, goal: float, pairs: int) -> Row:
    annotations = _write_set(folder, people)
    peer = _peer(annotations, folder)
    table = read_coco_wholebody(annotations, folder)
    ours = PersonDataset(table, CODEC, True)
    sampler = person_sampler(table, stage_schedule(10**6))(people, people, 0, 0, 10**6)

    def peer_epoch(_):
        return [peer[index] for index in np.random.permutation(people)]

    def our_epoch(epoch):
        return [ours[key] for key in sampler.batch(epoch)]

    sizes = [len(pickle.dumps(item)) for item in (our_epoch(0)[0], peer_epoch(0)[0])]
    lists = [len(pickle.dumps(table)), len(peer.data_bytes)]
    error = _target_error(peer, ours)
    shift = _affine_error(table)
    times = np.array(interleave(peer_epoch, our_epoch, pairs)) / people
    guard = (f"targets {error:.0e}, affine {shift:.0e}; bytes of a sample {sizes[0]} vs "
             f"{sizes[1]}, of a person's annotation {lists[0] // people} vs "
             f"{lists[1] // people}; {1e3 / np.median(times[1]):.0f} samples/s")
    holds = (error <= 1e-5 and shift <= 1e-3 and sizes[0] <= MOST_BYTES * sizes[1]
             and lists[0] <= MOST_BYTES * lists[1])
    return row(f"training sample, {what}, vs mmpose", (times[0], times[1]), goal, guard, holds)


def _write_set(folder: Path, people: int) -> Path:
    """The photograph under several names, its person as often as asked for."""
    data = json.loads((PHOTOGRAPH / "annotations.json").read_text())
    picture, person = data["images"][0], data["annotations"][0]
    data["images"] = [{**picture, "id": number, "file_name": f"{number}.jpg"}
                      for number in range(1, PICTURES + 1)]
    for item in data["images"]:
        link = folder / item["file_name"]
        if not link.exists():
            link.symlink_to(PHOTOGRAPH / picture["file_name"])
    data["annotations"] = [{**copy.deepcopy(person), "id": number,
                            "image_id": 1 + number % PICTURES} for number in range(people)]
    path = folder / f"people_{people}.json"
    path.write_text(json.dumps(data))
    return path


def _peer(annotations: Path, folder: Path):
    """mmpose's data set with the pipeline of DWPose's configurations."""
    _let_mmdet_load()
    import mmdet.datasets.transforms  # noqa: F401
    import mmpose
    import mmpose.datasets.transforms  # noqa: F401
    from mmengine.registry import init_default_scope
    from mmpose.datasets.datasets import CocoWholeBodyDataset

    init_default_scope("mmpose")
    codec = dict(type="SimCCLabel", input_size=CODEC.input_size_wh, sigma=CODEC.sigma,
                 simcc_split_ratio=2.0, normalize=False, use_dark=False)
    dropout = dict(type="CoarseDropout", max_holes=1, max_height=0.4, max_width=0.4, min_holes=1,
                   min_height=0.2, min_width=0.2, p=1.0)
    pipeline = [
        dict(type="LoadImage"), dict(type="GetBBoxCenterScale"),
        dict(type="RandomFlip", direction="horizontal"), dict(type="RandomHalfBody"),
        dict(type="RandomBBoxTransform", scale_factor=[0.6, 1.4], rotate_factor=80),
        dict(type="TopdownAffine", input_size=CODEC.input_size_wh),
        dict(type="mmdet.YOLOXHSVRandomAug"),
        dict(type="Albumentation", transforms=[dict(type="Blur", p=0.1),
                                               dict(type="MedianBlur", p=0.1), dropout]),
        dict(type="GenerateTarget", encoder=codec), dict(type="PackPoseInputs")]
    keypoints = Path(mmpose.__file__).parent / ".mim/configs/_base_/datasets/coco_wholebody.py"
    return CocoWholeBodyDataset(ann_file=str(annotations), data_prefix=dict(img=str(folder)),
                                pipeline=pipeline, metainfo=dict(from_file=str(keypoints)))


def _let_mmdet_load() -> None:
    """mmdet wants mmcv's compiled operators, of which the data pipeline uses none."""
    import mmcv

    class Operators(types.ModuleType):
        def __getattr__(self, name):
            if name.startswith("__"):
                raise AttributeError(name)
            return lambda *arguments, **named: None

    mmcv.__version__ = "2.1.0"
    sys.modules.setdefault("mmcv._ext", Operators("mmcv._ext"))


def _target_error(peer, ours: PersonDataset) -> float:
    """Largest difference of the targets that both make of the same points."""
    points = ours[0, 5, "strong"]
    codec = next(item.encoder for item in peer.pipeline.transforms if hasattr(item, "encoder"))
    made = codec.encode(points.xy.numpy(), points.weight.numpy())
    found = points.to("cpu")
    return max(float(np.abs(made[name] - value.numpy()).max()) for name, value in (
        ("keypoint_x_labels", found.target_x), ("keypoint_y_labels", found.target_y),
        ("keypoint_weights", found.weight)))


def _affine_error(table) -> float:
    """Difference of the crops' affines in pixels, but for where a pixel's edges are.

    mmpose counts box and input from the centre of the first pixel, kd_pose from its edge: the
    crops differ by (scale - 1) / 2 pixels.
    """
    from mmpose.structures.bbox import get_warp_matrix

    box = table.box_xywh[0].astype(np.float64)
    M = box_affine(box, CODEC.input_size_wh, 1.25)
    size = 1.25 * box[2:]
    aspect = CODEC.input_size_wh[0] / CODEC.input_size_wh[1]
    size = np.array([max(size[0], size[1] * aspect), max(size[1], size[0] / aspect)])
    peer = get_warp_matrix(box[:2] + 0.5 + box[2:] / 2, size, 0.0, CODEC.input_size_wh)
    expected = peer + [[0, 0, (peer[0, 0] - 1) / 2], [0, 0, (peer[1, 1] - 1) / 2]]
    return float(np.abs(M - expected).max())
