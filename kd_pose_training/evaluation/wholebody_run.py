"""People estimated in the pictures of an annotation file, from true boxes or a detector's.

The protocol of the published SimCC models: one crop a box, with or without the mean of the logits
of its mirror image, the person's score from box and keypoints, suppression by keypoint similarity.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from kd_pose.crop import GREY, apply_affine, box_affine, crop_batch, invert_affine
from kd_pose.person_scoring import crop_areas, oks_nms, rescore
from kd_pose.simcc import SimccCodec, merge_flipped
from kd_pose.wholebody_keypoints import COUNT, FLIP
from kd_pose_training.data.coco_wholebody import PersonTable
from kd_pose_training.data.person_dataset import CROP_PAD
from kd_pose_training.evaluation.wholebody import PersonTruth
from kd_pose_training.evaluation.wholebody_results import PersonBoxes, PersonEstimates

# Network input (B, 3, H, W) float32 -> logits x (B, 133, Wx) and y (B, 133, Wy).
Logits = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
# Picture BGR uint8 (H, W, 3), boxes xywh (n, 4) -> keypoints (n, 133, 2), scores (n, 133).
Predict = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def true_boxes(table: PersonTable) -> PersonBoxes:
    """The boxes of people that can be learned from, each with score 1."""
    return PersonBoxes(table.image_id[table.image], table.box_xywh.astype(np.float64),
                       np.ones(len(table)))


def simcc_predictor(logits: Logits, codec: SimccCodec, mean: Sequence[float],
                    std: Sequence[float], flip_test: bool = True,
                    crop_pad: float = CROP_PAD, border_value: float = GREY) -> Predict:
    """Crop, run, decode and map back, for any engine that gives SimCC logits.

    mean, std: RGB order, 0..255 scale. flip_test: also run the mirror image of each crop.
    border_value: fills what of a crop lies outside of the picture, 0..255.
    """
    size = codec.input_size_wh

    def predict(image: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        affines = [box_affine(box, size, crop_pad) for box in boxes]
        crops = crop_batch(image, affines, size, mean, std, swap_channels=True,
                           border_value=border_value)
        simcc = logits(crops)
        if flip_test:
            mirrored = np.ascontiguousarray(crops[..., ::-1])
            simcc = merge_flipped(simcc, logits(mirrored), FLIP)
        xy, scores = codec.decode(*simcc)
        return np.stack([apply_affine(invert_affine(M), points)
                         for M, points in zip(affines, xy)]), scores

    return predict


def estimate_people(predict: Predict, truth: PersonTruth, images: str | Path, boxes: PersonBoxes,
                    aspect: float, progress: bool = True) -> PersonEstimates:
    """Run over all pictures that have a box: estimates with scores, suppressed.

    Args:
        images: folder of the pictures. aspect: of the network's input, width over height.

    Raises:
        ValueError: a picture is missing, cannot be decoded, or has another size than annotated; a
            box is of an unknown picture.
    """
    from tqdm import tqdm
    columns: list[tuple[np.ndarray, ...]] = []
    order = np.argsort(boxes.image_id, kind="stable")
    ids, first = np.unique(boxes.image_id[order], return_index=True)
    row_of = {image_id: row for row, image_id in enumerate(truth.image_id.tolist())}
    groups = zip(ids.tolist(), np.split(order, first[1:]))
    for image_id, rows in tqdm(groups, "estimating", len(ids), unit=" pictures", leave=False,
                               disable=None if progress else True):
        if image_id not in row_of:
            raise ValueError(f"a box is of image_id {image_id}, which the annotations do not have")
        picture = truth.load_image(images, row_of[image_id])
        xy, keypoint_scores = predict(picture, boxes.box_xywh[rows])
        scores = rescore(boxes.score[rows], keypoint_scores)
        kept = oks_nms(xy, scores, crop_areas(boxes.box_xywh[rows], aspect))
        columns.append((np.full(len(kept), image_id), xy[kept], keypoint_scores[kept],
                        scores[kept]))
    if not columns:
        return PersonEstimates(np.zeros(0), np.zeros((0, COUNT, 2)), np.zeros((0, COUNT)),
                               np.zeros(0))
    return PersonEstimates(*(np.concatenate(column) for column in zip(*columns)))
