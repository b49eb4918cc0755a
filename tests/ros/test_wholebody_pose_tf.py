"""wholebody_pose on /tf, where tf2_msgs is installed: whose frame, where, which way it faces."""

# ruff: noqa: E402
import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("kd_pose_msgs", reason="build the workspace and source it first")
tf2_msgs = pytest.importorskip("tf2_msgs.msg")

from builtin_interfaces.msg import Time
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import Header

from helpers.fake_people import FakePeople
from helpers.ros_rig import Rig, fake_node, image_message, info_message, wait_for
from kd_pose.camera import Camera
from kd_pose.geometry import (
    make_pose,
    matrix_from_quaternion,
    rotation_angle_deg,
    rotation_from_vector,
    transform_points,
)
from kd_pose.nodes.people_messages import body_frames_message
from kd_pose.nodes.wholebody_pose_node import WholebodyPoseNode
from kd_pose.results import PeopleFrame, PersonPose, TrackState
from kd_pose.wholebody_keypoints import COUNT
from kd_pose_msgs.msg import WholebodyPose

HEADER = Header(stamp=Time(sec=7, nanosec=9), frame_id="optical")
TRUNK = [5, 6, 11, 12]  # left and right shoulder, left and right hip
# In the body's frame: x forward, y left, z up; flat, as what a camera sees of a back.
TRUNK_BODY = np.array([(0, 0.2, 0.5), (0, -0.2, 0.5), (0, 0.12, 0), (0, -0.12, 0)])
FACING = np.array([[0.0, 1, 0], [0, 0, -1], [-1, 0, 0]])  # columns: forward, left, up
TURN = rotation_from_vector
CAMERA = Camera(np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]]), 640, 480, "plumb_bob",
                (-0.1, 0.02, 0.0, 0.0, 0.0))
IMAGE, WALL_M = np.zeros((480, 640, 3), np.uint8), 4.0


def matrix(transform):
    """geometry_msgs/Transform -> (4, 4), child to parent."""
    t, q = transform.translation, transform.rotation
    return make_pose(matrix_from_quaternion([q.x, q.y, q.z, q.w]), [t.x, t.y, t.z])


def person(T=None, **fields):
    xyz = np.full((COUNT, 3), np.nan)
    if T is not None:
        xyz[TRUNK] = transform_points(T, TRUNK_BODY)
    values = dict(box_xywh=np.array([0, 50, 80, 200.0]), score=0.5,
                  keypoints_xy=np.zeros((COUNT, 2)), keypoint_scores=np.ones(COUNT),
                  keypoints_xyz=xyz, id="1", track_state=TrackState.TRACKED)
    return PersonPose(**{**values, **fields})


def test_a_message_of_those_who_are_tracked_seen_and_known():
    near, far = make_pose(FACING, (0, 0, 2)), make_pose(FACING, (1, 0.2, 5))
    frame = PeopleFrame([
        person(far, id="12"), person(near, id="3"), person(near, id=""), person(id="5"),
        person(keypoints_xyz=None, id="6"),
        *(person(near, id=str(7 + state), track_state=state) for state in TrackState
          if state is not TrackState.TRACKED)])
    sent = body_frames_message(frame, HEADER)
    got = deserialize_message(serialize_message(sent), tf2_msgs.TFMessage).transforms
    assert [item.child_frame_id for item in got] == ["body_12", "body_3"]
    for item, T in zip(got, (far, near)):
        assert item.header == HEADER
        np.testing.assert_allclose(matrix(item.transform), T, atol=1e-12)
    q = got[0].transform.rotation  # worked out in tests/runtime/test_body_frame.py
    assert [q.x, q.y, q.z, q.w] == pytest.approx([0.5, 0.5, -0.5, 0.5])


def test_no_message_of_nobody():
    assert body_frames_message(PeopleFrame(), HEADER) is None
    assert body_frames_message(PeopleFrame([person(id="1")]), HEADER) is None


class Trunks(FakePeople):
    """Sees one person, whose hips and shoulders are where the body `T_cam_body` has them."""

    def place(self, T_cam_body):
        self.trunk_xy = CAMERA.project(transform_points(T_cam_body, TRUNK_BODY))
        low, high = self.trunk_xy.min(axis=0) - 60, self.trunk_xy.max(axis=0) + 60
        self.people = [np.concatenate([low, high - low])]
        return plane_depth(T_cam_body, self.people[0])

    def _pose(self, box):
        result = super()._pose(box)
        result.keypoint_scores[:] = 0.1
        result.keypoint_scores[TRUNK] = 0.9
        result.keypoints_xy[TRUNK] = self.trunk_xy
        return result


def plane_depth(T_cam_body, box):
    """32FC1: the plane x = 0 of the body inside of the box, a wall behind it elsewhere."""
    rows, columns = np.mgrid[:480, :640]
    ideal = CAMERA.undistort(np.column_stack([columns.ravel(), rows.ravel()]).astype(float))
    rays = np.column_stack([ideal, np.ones(len(ideal))]) @ np.linalg.inv(CAMERA.K).T
    normal, origin = T_cam_body[:3, 0], T_cam_body[:3, 3]
    z = ((normal @ origin) / (rays @ normal)).reshape(480, 640)
    inside = (columns >= box[0]) & (columns < box[0] + box[2]) & (rows >= box[1]) & (
        rows < box[1] + box[3])
    return image_message(np.where(inside, z, WALL_M).astype(np.float32), "32FC1")


@pytest.fixture(scope="module")
def live():
    values = {"use_depth": True, "publish_tf": True, "tracking.confirm_frames": 2,
              "roi_source": "detector"}  # a trunk alone is too little to be looked for by tracks
    fake = Trunks()
    with Rig(values, kind=fake_node(fake, WholebodyPoseNode), outputs=("people",)) as rig:
        received = []
        listener = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
        rig.client.create_subscription(tf2_msgs.TFMessage, "/tf", received.append, listener)
        rig.start()
        wait_for(lambda: rig.node.count_subscribers("/tf") and rig.client.count_publishers("/tf"))
        yield rig, fake, received


def show(live, tenths, depth, **kwargs):
    """One image, taken so many tenths of a second after the first; what ~/people says of it."""
    rig = live[0]
    count = len(rig.received["people"])
    rig.publish(IMAGE, info_message(CAMERA), stamp(tenths), depth=depth, **kwargs)
    return rig.wait_message("people", count + 1)


def stamp(tenths):
    return 1000 + tenths // 10, 100_000_000 * (tenths % 10) + 3


def start(live):
    """The next image is the first one of a new person."""
    rig, fake, received = live
    rig.node.forget_before_next_image()
    received.clear()
    return rig, fake, received


POSES = {
    "facing": make_pose(FACING, (0.1, 0.2, 2.0)),
    "away": make_pose(TURN((0, np.pi, 0)) @ FACING, (-0.2, 0.1, 1.8)),
    "turned": make_pose(TURN((0, np.radians(35), 0)) @ FACING, (0.0, 0.2, 2.0)),
    "leaning": make_pose(TURN((0, 0, np.radians(50))) @ TURN((np.radians(20), 0, 0)) @ FACING,
                         (0.0, 0.1, 2.2)),
}


@pytest.mark.parametrize("T", POSES.values(), ids=POSES)
def test_the_published_transform_is_that_of_the_body(live, T):
    """Through lens, depth image and DDS: what is published takes the body to where it is."""
    rig, fake, received = start(live)
    depth = fake.place(T)
    assert show(live, 0, depth).people[0].track_state == WholebodyPose.TENTATIVE
    confirmed, = show(live, 1, depth).people
    wait_for(lambda: received)
    (item,), = [message.transforms for message in received]  # nothing of the first image
    assert item.child_frame_id == f"body_{confirmed.id}"
    assert item.header == rig.received["people"][-1].header
    assert (item.header.stamp.sec, item.header.stamp.nanosec) == stamp(1)
    assert item.header.frame_id == "camera_optical"
    found = matrix(item.transform)
    np.testing.assert_allclose(found[:3, 3], T[:3, 3], atol=0.01)
    assert rotation_angle_deg(found[:3, :3], T[:3, :3]) < 2.0
    np.testing.assert_allclose(transform_points(found, TRUNK_BODY),
                               transform_points(T, TRUNK_BODY), atol=0.015)


def states(message):
    return [person.track_state for person in message.people]


def test_only_who_is_seen_and_known_is_published(live):
    rig, fake, received = start(live)
    depth = fake.place(POSES["facing"])
    first, body = show(live, 0, depth).people[0], fake.people[0]
    assert states(show(live, 1, depth)) == [WholebodyPose.TRACKED]
    fake.people = []
    assert states(show(live, 2, depth)) == [WholebodyPose.COASTING]
    fake.people = [body]
    unknown = image_message(np.full((480, 640), np.nan, np.float32), "32FC1")
    assert states(show(live, 3, unknown)) == [WholebodyPose.TRACKED]
    # tf2 takes no transform without a parent.
    assert states(show(live, 4, depth, frame_id="")) == [WholebodyPose.TRACKED]
    assert states(show(live, 5, depth)) == [WholebodyPose.TRACKED]
    wait_for(lambda: len(received) >= 2)
    items = [item for message in received for item in message.transforms]
    assert [(item.header.stamp.sec, item.header.stamp.nanosec) for item in items] == [
        stamp(1), stamp(5)]
    assert {item.child_frame_id for item in items} == {f"body_{first.id}"}


def test_quality_of_service_is_that_of_tf(live):
    rig = live[0]
    info, = [info for info in rig.client.get_publishers_info_by_topic("/tf")
             if info.node_namespace == rig.namespace]
    assert info.qos_profile.reliability == ReliabilityPolicy.RELIABLE
    assert info.qos_profile.durability == DurabilityPolicy.VOLATILE
    assert rig.node._tf.qos_profile.depth == 100
