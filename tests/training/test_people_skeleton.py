"""Bones, joint limits and poses of rendered people."""

import numpy as np
import pytest

from kd_pose_training.synthetic.people.poses import (
    ACTIVITIES,
    draw_stance,
    hand_pose,
    sunk,
)
from kd_pose_training.synthetic.people.skeleton import (
    AVERAGE,
    BONES,
    FINGERS,
    LIMITS,
    MIRROR,
    Build,
    bone_lengths,
    check_limits,
    mirrored,
    place,
    within_limits,
)


def any_pose(seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.uniform(*limits) for name, limits in LIMITS.items()}


def test_zero_pose_is_a_person_who_stands():
    zero = place({})
    assert zero.at("l_thigh")[1] > 0 > zero.at("r_thigh")[1]  # left is y > 0
    assert zero.at("head")[2] > zero.at("chest")[2] > zero.at("l_shin")[2] > zero.at("l_foot")[2]
    assert zero.at("l_toes")[0] > zero.at("l_foot")[0]  # forwards is x > 0
    for side in "lr":  # hanging arms with thumbs to the front
        assert zero.at(f"{side}_hand")[2] < zero.at(f"{side}_forearm")[2]
        assert zero.at(f"{side}_thumb_end")[0] > zero.at(f"{side}_pinky_end")[0] + 0.08


def test_angles_do_what_their_names_say():
    arm = -0.255  # from elbow to wrist in the zero pose
    elbow, wrist = (place({"l_elbow_flex": 90}).at(name) for name in ("l_forearm", "l_hand"))
    np.testing.assert_allclose(wrist - elbow, [-arm, 0, 0], atol=1e-9)  # forwards
    raised = place({"l_shoulder_spread": 90, "r_shoulder_spread": 90})
    np.testing.assert_allclose(raised.at("l_forearm") - raised.at("l_upper_arm"), [0, 0.295, 0],
                               atol=1e-9)
    np.testing.assert_allclose(raised.at("r_forearm") - raised.at("r_upper_arm"), [0, -0.295, 0],
                               atol=1e-9)
    knee = place({"l_knee_flex": 90})
    np.testing.assert_allclose(knee.at("l_foot") - knee.at("l_shin"), [-0.42, 0, 0.008],
                               atol=1e-9)  # backwards
    head = place({"head_twist": 40}).rotations[list(BONES).index("head")]
    np.testing.assert_allclose(head[1, 0], np.sin(np.radians(40)))  # the nose turns to the left


@pytest.mark.parametrize("side", "lr")
def test_a_fist_brings_all_tips_to_the_palm(side):
    fist = {f"{side}_{name}": value for name, value in
            hand_pose("fist", np.random.default_rng(0)).items()}
    placed, flat = place(fist), place({})
    palm = 1 if side == "r" else -1  # towards the thigh
    for finger in FINGERS[1:]:
        bone = f"{side}_{finger}_end"
        assert palm * (placed.at(bone)[1] - flat.at(bone)[1]) > 0.02
        assert placed.at(bone)[2] > flat.at(bone)[2] + 0.04


@pytest.mark.parametrize("seed", range(3))
def test_bone_lengths_do_not_depend_on_the_pose(seed):
    scale = {name: (1.1, 0.9, 1.2) for name in BONES}
    for build in (AVERAGE, Build(scale)):
        np.testing.assert_allclose(bone_lengths(place(any_pose(seed), build)),
                                   bone_lengths(place({}, build)), atol=1e-12)


def test_a_longer_bone_moves_what_is_beyond_it():
    longer = place({}, Build({"l_upper_arm": (1, 1, 1.5)}))
    np.testing.assert_allclose(longer.at("l_hand") - place({}).at("l_hand"),
                               [0, 0, -0.5 * 0.295], atol=1e-9)
    np.testing.assert_allclose(longer.at("r_hand"), place({}).at("r_hand"))


def test_a_mirrored_pose_is_the_mirror_image():
    pose = any_pose(4)
    one, other = place(pose), place(mirrored(pose))
    for bone in BONES:
        partner = {"l_": "r_", "r_": "l_"}.get(bone[:2], bone[:2]) + bone[2:]
        np.testing.assert_allclose(other.at(partner), MIRROR @ one.at(bone), atol=1e-12)
    assert mirrored(mirrored(pose)) == pose


@pytest.mark.parametrize("activity", ACTIVITIES)
def test_activities_stay_within_all_limits(activity):
    rng = np.random.default_rng(ACTIVITIES.index(activity))
    for _ in range(2):
        stance = draw_stance(rng, AVERAGE, activity)
        check_limits(stance.pose)
        assert stance.name == activity


def test_arms_keep_out_of_the_body():
    inside = {"l_shoulder_in": 85, "l_elbow_flex": 90}  # a forearm through the belly
    assert sunk(place(inside), AVERAGE) > 0.03
    assert sunk(place({"l_shoulder_spread": 60, "r_shoulder_spread": 60}), AVERAGE) < 0
    rng = np.random.default_rng(0)
    depths = [sunk(place(draw_stance(rng, AVERAGE).pose), AVERAGE) for _ in range(20)]
    assert np.mean(np.array(depths) <= 0) >= 0.8


def test_bad_poses_are_refused():
    with pytest.raises(ValueError, match="l_elbow_flex is 170.0 degrees; allowed: 0 to 148"):
        check_limits({"l_elbow_flex": 170.0})
    with pytest.raises(ValueError, match="unknown angle 'tail'"):
        check_limits({"tail": 1.0})
    assert within_limits({"l_elbow_flex": 170.0}) == {"l_elbow_flex": 148.0}
    with pytest.raises(ValueError, match="no activity 'fly'"):
        draw_stance(np.random.default_rng(0), AVERAGE, "fly")
    with pytest.raises(ValueError, match="no grip 'claw'"):
        hand_pose("claw", np.random.default_rng(0))
