"""kd_pose.wholebody_keypoints."""

import numpy as np
import pytest

from kd_pose.wholebody_keypoints import (
    COCO_WHOLEBODY_133,
    COUNT,
    FLIP,
    GROUP,
    LOWER_BODY,
    PARTS,
    SIGMAS,
    UPPER_BODY,
)

NAMES = COCO_WHOLEBODY_133.names


def test_parts_follow_each_other_and_hold_every_point():
    assert [part.stop - part.start for part in PARTS.values()] == [17, 6, 68, 21, 21]
    assert np.concatenate([np.r_[part] for part in PARTS.values()]).tolist() == list(range(COUNT))
    assert len(NAMES) == len(SIGMAS) == len(GROUP) == len(FLIP) == COUNT
    assert NAMES[10] == "right_wrist" and NAMES[22] == "right_heel" and NAMES[23] == "face_0"
    assert NAMES[91] == "left_hand_root" and NAMES[132] == "right_pinky_finger4"
    assert GROUP.tolist() == [0] * 17 + [1] * 6 + [2] * 68 + [3] * 21 + [4] * 21


def test_mirroring_twice_changes_nothing_and_swaps_the_sides():
    assert (FLIP[FLIP] == np.arange(COUNT)).all()
    for index, name in enumerate(NAMES):
        if name.startswith("left_"):
            assert NAMES[FLIP[index]] == name.replace("left_", "right_")
    assert NAMES[FLIP[0]] == "nose"
    # chin, bridge and tip of the nose and the middle of the lips lie on the axis
    on_axis = np.flatnonzero(FLIP[PARTS["face"]] == np.r_[PARTS["face"]]).tolist()
    assert on_axis == [8, 27, 28, 29, 30, 33, 51, 57, 62, 66]


def test_the_mirrored_skeleton_is_the_same_skeleton():
    edges = {frozenset(edge) for edge in COCO_WHOLEBODY_133.edges}
    assert edges == {frozenset(int(FLIP[i]) for i in edge) for edge in edges}
    assert len(edges) == len(COCO_WHOLEBODY_133.edges)


def test_sigmas_are_those_of_the_data_set():
    # Both hands, and left and right of the body, are equally hard to label.
    assert (SIGMAS[PARTS["left_hand"]] == SIGMAS[PARTS["right_hand"]]).all()
    assert (SIGMAS[1:17:2] == SIGMAS[2:17:2]).all()
    sums = [SIGMAS[part].sum() for part in PARTS.values()]
    assert sums == pytest.approx([1.138, 0.48, 1.137, 0.553, 0.553], abs=1e-9)


def test_half_bodies_and_read_only_tables():
    assert [NAMES[i] for i in (UPPER_BODY[-1], LOWER_BODY[0])] == ["right_wrist", "left_hip"]
    assert set(UPPER_BODY) | set(LOWER_BODY) == set(range(23))
    with pytest.raises(ValueError, match="read-only"):
        FLIP[0] = 1
