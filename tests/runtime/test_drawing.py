"""kd_pose.drawing."""

import numpy as np
import pytest

from helpers.tiny_models import example_camera, example_scene
from kd_pose.drawing import PALETTE, class_colour, draw_detections, draw_objects
from kd_pose.geometry import make_pose
from kd_pose.results import Detection2D, ObjectPose, ObjectPoseFrame, TrackState


def frame_of(scene, **changes):
    objects = []
    for index, spec in enumerate(scene.specs):
        values = dict(
            class_id=spec.name, score=0.87, T_cam_obj=scene.poses[index], covariance=None,
            spec=spec, keypoints_xy=scene.corners_px(index), keypoint_scores=np.ones(8),
            reprojection_error_px=0.2, inliers=48,
        )
        objects.append(ObjectPose(**{**values, **changes}))
    return ObjectPoseFrame(objects=objects)


def grey(camera):
    return np.full((camera.height, camera.width, 3), 90, np.uint8)


@pytest.mark.parametrize("distorted", [False, True])
def test_box_is_drawn_where_the_object_is(distorted):
    scene = example_scene(example_camera(distorted=distorted))
    image = grey(scene.camera)
    drawn = draw_objects(image, frame_of(scene), scene.camera)
    assert (image == 90).all()  # the caller's image is not touched
    changed = (drawn != image).any(axis=2)
    for index in range(2):
        for x, y in np.rint(scene.corners_px(index)).astype(int):
            assert changed[y - 2 : y + 3, x - 2 : x + 3].any()
        x, y, w, h = scene.box_xywh(index).astype(int)
        # nothing below the box, where neither label nor edge can be
        assert not changed[y + h + 8 : y + h + 60, x : x + w].any()


def test_channel_order_only_swaps_the_colours():
    scene = example_scene()
    bgr = draw_objects(grey(scene.camera), frame_of(scene), scene.camera, "bgr")
    rgb = draw_objects(grey(scene.camera), frame_of(scene), scene.camera, "rgb")
    assert np.array_equal(bgr[..., ::-1], rgb) and not np.array_equal(bgr, rgb)


@pytest.mark.parametrize("t", [(0, 0, 0.03), (0, 0, -1), (0.001, 0, 0.001), (500, 0, 0.01)])
def test_objects_at_or_behind_the_camera_do_not_raise(t):
    scene = example_scene(example_camera(distorted=True))
    frame = frame_of(scene, T_cam_obj=make_pose(np.eye(3), t),
                     keypoints_xy=np.full((8, 2), np.nan))
    drawn = draw_objects(grey(scene.camera), frame, scene.camera)
    if t[2] < 0:
        assert (drawn == 90).all()


def test_detections_and_labels_at_the_edges():
    image = np.full((120, 160, 3), 40, np.uint8)
    boxes = [Detection2D("block", 0.5, np.array(box, float)) for box in
             ([-20, -20, 60, 60], [150, 100, 60, 60], [0, 0, 160, 120], [1e6, 1e6, 5, 5])]
    drawn = draw_detections(image, boxes, "rgb")
    assert drawn.shape == image.shape and (drawn != image).any()


def test_a_coasting_object_is_fainter():
    scene = example_scene()
    sure = draw_objects(grey(scene.camera), frame_of(scene), scene.camera)
    coasting = draw_objects(grey(scene.camera),
                            frame_of(scene, track_state=TrackState.COASTING), scene.camera)
    difference = [np.abs(i.astype(int) - 90).sum() for i in (sure, coasting)]
    assert difference[1] < difference[0]


def test_colours():
    names = [f"object{i}" for i in range(len(PALETTE))]
    assert len({class_colour(name, names) for name in names}) == len(PALETTE)
    assert class_colour("cup") == class_colour("cup")


def test_empty_frame_and_bad_arguments():
    camera = example_camera()
    image = grey(camera)
    drawn = draw_objects(image, ObjectPoseFrame(), camera)
    assert np.array_equal(drawn, image) and drawn is not image
    with pytest.raises(ValueError, match="channel_order"):
        draw_objects(image, ObjectPoseFrame(), camera, "xyz")
    with pytest.raises(ValueError, match="uint8"):
        draw_detections(image[..., 0], [])
