"""Sets of which only some frames have poses: the others give regions and boxes, no more.

Masks and boxes are cheap to get, poses are not. With ``data.pose_share`` a rendered set stands in
for one that somebody has labelled in part, so that ways of learning from the rest compare.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from kd_pose_training.data.bop import BopFrame


def pose_is_known(frame: BopFrame, share: float) -> bool:
    """Whether a frame is among those with poses: always the same ones for a share, and those of
    a smaller share are among those of a larger one."""
    name = f"{frame.scene_id}/{frame.im_id}".encode()
    return zlib.crc32(name) < share * 2**32


def posed_first(items: Sequence[tuple[int, int]], posed: Sequence[bool], unposed_share: float
                ) -> tuple[list[tuple[int, int]], tuple[tuple[int, float], ...]]:
    """Samples (frame, instance) with those of posed frames in front, and the mix of both parts
    (see ``IterationSampler``); without the others where ``unposed_share`` is 0.

    Raises:
        ValueError: no sample has a pose, or all have.
    """
    known = [item for item in items if posed[item[0]]]
    unknown = [item for item in items if not posed[item[0]]]
    if not known or not unknown:
        raise ValueError(f"data.pose_share: {len(known)} samples with and {len(unknown)} without "
                         f"poses in {len(posed)} frames; both must be there")
    if not unposed_share:
        return known, ()
    return known + unknown, ((len(known), round(1 - unposed_share, 9)),
                             (len(unknown), unposed_share))
