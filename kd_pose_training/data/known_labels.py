"""Sets of people of whom only some have keypoints: of the others the box is known, no more.

A box is cheap to get, 133 keypoints are not. With ``data.label_share`` a labelled set stands in
for one that somebody has labelled in part, so that ways of learning from the rest compare. The
sibling of :mod:`kd_pose_training.data.known_poses`.
"""

from __future__ import annotations

import dataclasses
import zlib

import numpy as np

from kd_pose_training.data.coco_wholebody import PersonTable


def labels_are_known(table: PersonTable, share: float) -> np.ndarray:
    """(I,) bool, of every picture: always the same ones for a share, and those of a smaller share
    are among those of a larger one. Names decide, so folders and order do not matter."""
    marks = [zlib.crc32(name) for name in table.file_name.tolist()]
    return np.array(marks, dtype=np.int64) < share * 2**32


def labelled_first(table: PersonTable, share: float, unlabelled_share: float
                   ) -> tuple[PersonTable, tuple[tuple[int, float], ...]]:
    """The people with keypoints in front, the others without theirs behind, and the mix of both
    parts (see ``IterationSampler``); without the others where ``unlabelled_share`` is 0.

    Raises:
        ValueError: nobody has keypoints, or everybody has.
    """
    if share == 1:
        return table, ()
    known = labels_are_known(table, share)[table.image]
    if known.all() or not known.any():
        raise ValueError(f"data.label_share: {int(known.sum())} people with and "
                         f"{int((~known).sum())} without keypoints in {len(table.image_id)} "
                         "pictures; both must be there")
    if not unlabelled_share:
        return table.select(np.flatnonzero(known)), ()
    # Two selections would number the pictures apart; one keeps a picture's row.
    table = table.select(np.argsort(~known, kind="stable"))
    count = int(known.sum())
    hidden = {name: getattr(table, name).copy() for name in ("xy", "visibility", "valid")}
    for column in hidden.values():
        column[count:] = 0
    return (dataclasses.replace(table, **hidden),
            ((count, round(1 - unlabelled_share, 9)), (len(known) - count, unlabelled_share)))
