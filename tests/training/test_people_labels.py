"""Keypoints of rendered people: order, sides, places, visibility."""

from dataclasses import replace

import numpy as np
import pytest

from helpers.synth_scenes import LIGHT, renderer
from kd_pose.geometry import transform_points
from kd_pose.wholebody_keypoints import COCO_WHOLEBODY_133, FLIP, PARTS
from kd_pose_training.synthetic.people.compose import (
    Crowd,
    PeopleComposer,
    frame_generator,
    number_of_people,
)
from kd_pose_training.synthetic.people.figure import draw_person, make_figure, mesh_of_figure
from kd_pose_training.synthetic.people.head import Features, HeadForm, head_distance, landmarks
from kd_pose_training.synthetic.people.labels import annotate, project
from kd_pose_training.synthetic.people.places import box_mesh
from kd_pose_training.synthetic.people.poses import Stance, draw_stance
from kd_pose_training.synthetic.people.settings import (
    CrowdSettings,
    LabelSettings,
    PeopleSettings,
    PictureSettings,
)
from kd_pose_training.synthetic.people.sheet import keypoints_of
from kd_pose_training.synthetic.people.skeleton import AVERAGE, mirrored
from kd_pose_training.synthetic.scene import CLUTTER, Scene, Thing, look_at

NAMES = {name: row for row, name in enumerate(COCO_WHOLEBODY_133.names)}
LABELS = LabelSettings(smallest=1)
SMALL = PeopleSettings(picture=PictureSettings(96, 72), crowd=CrowdSettings(
    people=(1, 2), close=0, half=0, whole=1, furniture=1))


@pytest.fixture(scope="module")
def person():
    drawn = draw_person(np.random.default_rng(1))
    return replace(drawn, build=AVERAGE, form=HeadForm(), curved=False, top="tee",
                   bottom="trousers", style="short", hat="none", glasses=0)


def points_of(person, pose=None, features=None):
    return make_figure(person, Stance(pose or {}), features or Features()).keypoints


def test_all_points_have_the_place_of_their_name(person):
    points = points_of(person)
    assert points.shape == (133, 3)
    for name, row in NAMES.items():
        if name.startswith("left_"):
            assert points[row, 1] > 0 > points[NAMES["right" + name[4:]], 1], name
    height = points[:, 2]
    for above, below in (("nose", "left_shoulder"), ("left_shoulder", "left_elbow"),
                         ("left_elbow", "left_wrist"), ("left_hip", "left_knee"),
                         ("left_knee", "left_ankle"), ("left_ankle", "left_heel"),
                         ("left_wrist", "left_forefinger1"),
                         ("left_forefinger1", "left_forefinger4"), ("face_27", "face_30"),
                         ("face_51", "face_57"), ("face_19", "face_37"), ("face_37", "face_41")):
        assert height[NAMES[above]] > height[NAMES[below]], (above, below)
    assert points[NAMES["left_big_toe"], 0] > points[NAMES["left_small_toe"], 0] > \
        points[NAMES["left_heel"], 0] + 0.15
    face = points[PARTS["face"]]
    assert (np.diff(face[:17, 1]) > -0.002).all()  # the jaw goes from the right to the left
    assert face[8, 2] == face[:17, 2].min() and np.argmax(face[:, 0]) in (30, 33)  # chin; nose
    np.testing.assert_allclose(points[NAMES["nose"]], face[30], atol=0.012)
    for side in ("left", "right"):
        np.testing.assert_allclose(points[NAMES[f"{side}_wrist"]],
                                   points[NAMES[f"{side}_hand_root"]], atol=0.01)


def test_proportions_are_those_of_people(person):
    """Shares of the stature, Winter's table 4.1, to a few per cent of the stature."""
    points = points_of(person)
    stature = 1.75
    for name, share in (("left_shoulder", 0.818), ("left_hip", 0.530), ("left_knee", 0.285),
                        ("left_ankle", 0.039), ("left_wrist", 0.485), ("left_elbow", 0.630),
                        ("left_middle_finger4", 0.377), ("left_eye", 0.936), ("face_8", 0.870)):
        assert points[NAMES[name], 2] / stature == pytest.approx(share, abs=0.022), name


def test_a_mirrored_person_has_the_flipped_points(person):
    rng = np.random.default_rng(3)
    features = Features(mouth_open=0.005, smile=0.003, brow=0.002, lid=0.7)
    pose = draw_stance(rng, AVERAGE, "gestures").pose
    one, other = (points_of(person, p, features) for p in (pose, mirrored(pose)))
    np.testing.assert_allclose(other[FLIP] * (1, -1, 1), one, atol=1e-5)


def test_points_of_the_skin_lie_on_the_drawn_surface(person):
    figure = make_figure(replace(person, style="bald", boots=False), Stance({}),
                         Features(smile=0.002))
    mesh, owners = mesh_of_figure(figure, 1)
    assert len(owners) == len(mesh.vertices)
    for row in [0, 1, 2, 3, 4, *range(17, 91)]:  # vertices of distant people are 9 to 14 mm apart
        gap = np.linalg.norm(mesh.vertices - figure.keypoints[row], axis=1).min()
        assert gap < 0.0105, (COCO_WHOLEBODY_133.names[row], gap)
    on_head = landmarks(HeadForm(), Features())
    assert np.abs(head_distance()(on_head.astype(np.float32))).max() < 5e-4


K = np.array([[300.0, 0, 159.5], [0, 300.0, 119.5], [0, 0, 1]])


def crowd_of(figure, extra=(), eye=(4.0, 0, 1.0), target=(0, 0, 0.9)):
    """One person who looks at the camera."""
    mesh, owners = mesh_of_figure(figure, 1)
    things = (Thing(mesh, 0, np.eye(4), np.ones(3), 0.0, 10.0), *extra)
    scene = Scene(K, 320, 240, look_at(np.array(eye), np.array(target), 0.0), things, LIGHT,
                  np.zeros((240, 320, 3), np.uint8))
    return Crowd(scene, [figure.keypoints], [figure.slack], [owners])


def labelled(crowd):
    """x, y, v (133, 3) of the only person, and the annotation."""
    annotation, = annotate(crowd, renderer("rays").render(crowd.scene, whole=False), LABELS)
    return keypoints_of(annotation), annotation


OPEN = {"l_shoulder_spread": 35, "r_shoulder_spread": 35, "l_hip_spread": 6, "r_hip_spread": 6}


def test_pixels_are_the_projected_points(person):
    crowd = crowd_of(make_figure(person, Stance(OPEN), Features()))
    rows, _ = labelled(crowd)
    T, points = crowd.scene.T_cam_world, crowd.keypoints[0]
    camera = points @ T[:3, :3].T + T[:3, 3]
    expected = np.stack([300 * camera[:, 0] / camera[:, 2] + 159.5,
                         300 * camera[:, 1] / camera[:, 2] + 119.5], 1)
    assert (rows[:, 2] > 0).all()
    np.testing.assert_allclose(rows[:, :2], expected, atol=0.006)
    assert rows[NAMES["left_wrist"], 0] > rows[NAMES["right_wrist"], 0]  # seen from the front


def test_what_faces_the_camera_is_seen(person):
    rows, annotation = labelled(crowd_of(make_figure(person, Stance(OPEN), Features())))
    body = rows[PARTS["body"], 2]
    assert (np.delete(body, [3, 4]) == 2).all()  # ears may hide behind cheeks and hair
    assert (rows[PARTS["face"], 2] == 2).mean() > 0.9
    assert annotation["num_keypoints"] == 17 and annotation["face_valid"]
    x, y, w, h = annotation["bbox"]
    assert x <= rows[:, 0].min() + 2 and y + h >= rows[:, 1].max() - 2


def test_a_face_is_not_seen_from_behind(person):
    rows, annotation = labelled(crowd_of(make_figure(person, Stance(OPEN), Features()),
                                         eye=(-4.0, 0, 1.2)))
    assert (rows[:3, 2] == 1).all()
    assert not annotation["face_valid"] and not np.any(annotation["face_kpts"])
    assert annotation["face_box"] == [0, 0, 0, 0]
    assert (rows[5:17, 2] == 2).all()  # shoulders to ankles show their backs


def test_an_occluder_hides_what_is_behind_it(person):
    figure = make_figure(person, Stance(OPEN), Features())
    box = Thing(box_mesh((0.1, 3.0, 0.7)), CLUTTER, np.eye(4), np.ones(3), 0.0, 10.0)
    place = np.eye(4)
    place[0, 3] = 1.0
    rows, annotation = labelled(crowd_of(figure, (replace(box, T_world=place),)))
    for name in ("knee", "ankle", "big_toe", "heel"):
        for side in ("left", "right"):
            assert rows[NAMES[f"{side}_{name}"], 2] == 1, name
    for name in ("nose", "left_shoulder", "right_elbow", "left_hip"):
        assert rows[NAMES[name], 2] == 2, name
    place[0, 3] = -1.0  # behind the person it hides nothing
    free, _ = labelled(crowd_of(figure, (replace(box, T_world=place),)))
    assert (free[13:17, 2] == 2).all()
    np.testing.assert_allclose(free[:, :2], rows[:, :2])


def test_the_own_arm_hides_a_hip(person):
    over = {**OPEN, "l_shoulder_spread": 4, "l_shoulder_flex": 22, "l_shoulder_in": 50,
            "l_elbow_flex": 22}
    figure = make_figure(person, Stance(over), Features())
    crowd = crowd_of(figure)
    pixels, _ = project(figure.keypoints, crowd.scene.T_cam_world, K)
    hand = pixels[PARTS["left_hand"]]
    hip = pixels[NAMES["left_hip"]]
    assert (hand.min(axis=0) < hip + 8).all() and (hand.max(axis=0) > hip - 8).all()
    near = crowd_of(figure, eye=tuple(figure.keypoints[NAMES["left_hip"]] + 1.5 * (
        figure.keypoints[NAMES["left_middle_finger1"]] - figure.keypoints[NAMES["left_hip"]])
        / np.linalg.norm(figure.keypoints[NAMES["left_middle_finger1"]]
                         - figure.keypoints[NAMES["left_hip"]])),
        target=tuple(figure.keypoints[NAMES["left_hip"]]))
    rows, _ = labelled(near)
    assert rows[NAMES["left_hip"], 2] == 1


def test_outside_of_the_picture_is_nought(person):
    figure = make_figure(person, Stance(OPEN), Features())
    rows, annotation = labelled(crowd_of(figure, eye=(1.0, 0, 1.6), target=(0, 0, 1.6)))
    assert (rows[11:23] == 0).all() and not annotation["foot_valid"]
    assert (rows[PARTS["face"], 2] > 0).all()
    x, y, w, h = annotation["bbox"]
    assert y + h == 240  # cut at the edge


def test_frames_are_a_function_of_seed_split_and_number():
    composer = PeopleComposer(SMALL)

    def drawn(*key):
        return composer.crowd(frame_generator(*key))

    one, again = drawn(0, "train", 5), drawn(0, "train", 5)
    for a, b in zip(one.keypoints, again.keypoints):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(one.scene.objects[0].mesh.texture,
                                  again.scene.objects[0].mesh.texture)
    first = {key: frame_generator(*key).random() for key in (
        (0, "train", 5), (1, "train", 5), (0, "val", 5), (0, "train", 6))}
    assert len(set(first.values())) == 4


def test_world_points_go_with_the_mesh(person):
    crowd = PeopleComposer(SMALL).crowd(frame_generator(0, "train", 5))
    for thing, points in zip(crowd.scene.objects, crowd.keypoints):
        world = transform_points(thing.T_world, thing.mesh.vertices.astype(float))
        assert np.linalg.norm(world - points[0], axis=1).min() < 0.02  # the nose
        assert world[:, 2].min() == pytest.approx(0, abs=0.03)  # stands on the ground


def test_places_without_anybody():
    empty = replace(SMALL, crowd=replace(SMALL.crowd, people=(0, 0)))
    crowd = PeopleComposer(empty).crowd(frame_generator(0, "train", 5))
    assert not crowd.scene.objects and not crowd.keypoints and crowd.scene.things


def test_how_many_people_there_are():
    rng = np.random.default_rng(0)
    drawn = np.array([number_of_people((0, 3), rng) for _ in range(2000)])
    share = np.bincount(drawn) / len(drawn)
    assert len(share) == 4 and abs(share[0] - 0.15) < 0.03
    assert share[1] > share[2] > 0.1
    assert {number_of_people((2, 4), rng) for _ in range(200)} == {2, 3, 4}
    assert number_of_people((0, 0), rng) == 0
