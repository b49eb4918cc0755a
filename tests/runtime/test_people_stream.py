"""kd_pose.people_stream: where it looks, how often it detects, and what it tells of whom."""

from dataclasses import replace

import numpy as np
import pytest

from helpers.fake_people import FakePeople, true_points
from kd_pose.camera import Camera
from kd_pose.people_stream import STREAM_STAGES, PeopleStream, StreamOptions
from kd_pose.results import PERSON, Detection2D, TrackState
from kd_pose.smoothing import SmoothingOptions
from kd_pose.tracking import TrackingOptions

IMAGE = np.zeros((480, 640, 3), np.uint8)
ONE, TWO = (100, 100, 80, 200), (400, 120, 80, 200)
CAMERA = Camera(np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]]), 640, 480)


def stream(people, **options):
    fake = FakePeople(people)
    return PeopleStream(fake, StreamOptions(**options)), fake


def ids(frame):
    return [person.id for person in frame.people]


def test_the_detector_runs_every_n_images_and_everyone_keeps_the_id():
    s, fake = stream([ONE, TWO], detector_every_n=5, detector_still_n=1)
    for i in range(11):
        frame = s.estimate(IMAGE, 0.1 * i)
        assert ids(frame) == ["1", "2"]
        fake.people = [box + (3, 0, 0, 0) for box in fake.people]
    assert fake.detections == 3  # images 0, 5 and 10
    np.testing.assert_allclose(frame.people[0].keypoints_xy, true_points((130, 100, 80, 200)))
    # Between them the boxes are those of the last keypoints, padded.
    assert fake.looked_at[1][0][2] == pytest.approx(1.15 * 80)


def test_while_nothing_else_moves_the_detector_rests():
    s, fake = stream([ONE], detector_every_n=5, detector_still_n=20)
    rng = np.random.default_rng(0)
    for i in range(41):
        image = rng.integers(60, 70, IMAGE.shape, dtype=np.uint8)  # noise is no movement
        x, y, w, h = (int(value) for value in fake.people[0])
        image[y:y + h, x:x + w] = rng.integers(0, 255, (h, w, 3))  # whom it knows may move
        s.estimate(image, 0.1 * i)
        fake.people = [box + (4, 0, 0, 0) for box in fake.people]
        assert fake.detections == 1 + (i >= 20)


def searches(s, fake, images, seen):
    """Numbers of the images in which the detector ran; `seen(i)`: image and people of each."""
    found = []
    for i in range(images):
        before = fake.detections
        image, people = seen(i)
        fake.people = [np.array(box, float) for box in people]
        s.estimate(image, 0.1 * i)
        found += [i] * (fake.detections > before)
    return found


def test_the_longer_nobody_new_is_found_the_longer_the_detector_rests():
    s, fake = stream([ONE], detector_every_n=5, detector_still_n=10)
    assert searches(s, fake, 160, lambda i: (IMAGE, [ONE])) == [0, 10, 30, 70, 110, 150]


def test_somebody_new_ends_the_rest():
    """TWO stands there from image 25 on without a change that the coarse picture shows."""
    s, fake = stream([ONE], detector_every_n=5, detector_still_n=10)
    assert searches(s, fake, 75, lambda i: (IMAGE, [ONE, TWO] if i >= 25 else [ONE])) == [
        0, 10, 30, 40, 60]


def test_a_movement_ends_the_rest():
    s, fake = stream([ONE], detector_every_n=5, detector_still_n=10)
    moved = IMAGE.copy()
    moved[300:400, 500:600] = 90
    assert searches(s, fake, 75, lambda i: (moved if i >= 33 else IMAGE, [ONE])) == [
        0, 10, 30, 35, 45, 65]


def test_whoever_is_lost_ends_the_rest():
    s, fake = stream([ONE], detector_every_n=5, detector_still_n=10)
    # Not found in 33, looked for at once and in the next image, where it is; from there on anew.
    assert searches(s, fake, 70, lambda i: (IMAGE, [] if i == 33 else [ONE])) == [
        0, 10, 30, 33, 34, 44, 64]


def test_an_equal_detector_still_n_makes_no_difference():
    s, fake = stream([ONE], detector_every_n=10, detector_still_n=10)
    assert searches(s, fake, 41, lambda i: (IMAGE, [ONE])) == [0, 10, 20, 30, 40]


def test_what_moves_elsewhere_wakes_the_detector():
    s, fake = stream([ONE], detector_every_n=5, detector_still_n=100)
    for i in range(31):
        image = IMAGE.copy()
        if i >= 12:
            image[200:260, 500:520] = 80  # somebody small, far from the one it knows
        s.estimate(image, 0.1 * i)
        assert fake.detections == (1 if i < 12 else 2)  # at once, then it has been searched


def test_a_camera_that_moves_is_searched_as_often_as_without():
    s, fake = stream([ONE], detector_every_n=5, detector_still_n=100)
    view = np.random.default_rng(0).integers(0, 255, (480, 900, 1), dtype=np.uint8)
    view = np.repeat(np.repeat(view[::40, ::40], 40, 0), 40, 1)[:480, :900]
    for i in range(11):
        s.estimate(np.repeat(view[:, 10 * i:10 * i + 640], 3, 2), 0.1 * i)
    assert fake.detections == 3  # images 0, 5 and 10


def test_while_nobody_is_there_every_image_is_searched():
    s, fake = stream([], detector_every_n=10)
    for i in range(3):
        frame = s.estimate(IMAGE, 0.1 * i)
        assert frame.people == [] and frame.detections == []
    fake.people = [np.array(ONE, float)]
    assert ids(s.estimate(IMAGE, 0.3)) == ["1"]
    assert fake.detections == 4


def test_someone_lost_is_searched_at_once():
    s, fake = stream([ONE], detector_every_n=100)
    for i in range(4):
        s.estimate(IMAGE, 0.1 * i)
    assert fake.detections == 1
    fake.people = [np.array(TWO, float)]  # jumped away: the box of the track holds nobody
    frame = s.estimate(IMAGE, 0.4)
    assert fake.detections == 2
    assert {person.id: person.track_state for person in frame.people} == {
        "2": TrackState.TENTATIVE, "1": TrackState.COASTING}
    assert frame.timing_ms["network"] == 2.0  # milliseconds, one for either look
    s.estimate(IMAGE, 0.5)  # as long as somebody is missing
    assert fake.detections == 3


def test_who_is_seen_in_the_detectors_boxes_alone_does_not_come_and_go():
    s, fake = stream([ONE], detector_every_n=4, detector_still_n=1)
    loose = np.array([90.0, 90.0, 100.0, 230.0])
    fake.detect = lambda image, order, detect=fake.detect: detect(image, order) and [
        Detection2D(PERSON, 0.9, loose)]
    fake._pose = lambda box, pose=fake._pose: (
        pose(box) if box.box_xywh is loose else _unsure(pose(box)))
    runs = []
    for i in range(12):
        frame = s.estimate(IMAGE, 0.1 * i)
        assert ids(frame) == ["1"] and frame.people[0].score > 0
        runs.append(fake.detections)
    # The track alone is tried in images 1, 6 and 11, which costs a second look; no more than that.
    assert runs == list(range(1, 13))
    assert [len(fake.looked_at), frame.people[0].track_state] == [12 + 3, TrackState.TRACKED]


def test_who_is_missed_by_the_detector_is_found_by_the_track():
    s, fake = stream([ONE, TWO], detector_every_n=2, detector_still_n=1)
    for i in range(6):
        if i == 2:
            fake.hidden = {1}
        assert sorted(ids(s.estimate(IMAGE, 0.1 * i))) == ["1", "2"]
    assert len(fake.looked_at[4]) == 2  # one of the detector, one of the track


def test_one_detection_does_not_stand_for_two_who_overlap():
    behind = (130, 100, 80, 200)
    s, fake = stream([ONE, behind], detector_every_n=3, detector_still_n=1)
    for i in range(12):
        fake.hidden = {1} if i >= 2 else set()
        frame = s.estimate(IMAGE, 0.1 * i)
        assert sorted(ids(frame)) == ["1", "2"]
        assert all(person.score > 0 for person in frame.people)  # seen, not coasting


def test_a_track_that_shows_the_same_person_again_is_left_out():
    """Of somebody in a detected box a second track has only the upper half."""
    s, fake = stream([ONE], detector_every_n=1, detector_still_n=1)
    half = np.array([100.0, 100.0, 80.0, 76.0])
    fake._pose = lambda box, pose=fake._pose: (
        _shifted(pose(box), 6.5) if box.box_xywh[3] < 100 else pose(box))
    assert ids(s.estimate(IMAGE, 0.0)) == ["1"]
    s._tracker.tracks[0].box_xywh = half  # as if only the upper half had been sure
    frame = s.estimate(IMAGE, 0.1)
    assert len(fake.looked_at[1]) == 2  # both boxes, of one person
    assert sum(person.score > 0 for person in frame.people) == 1


def test_a_track_on_somebodys_hand_ends_when_the_detector_has_looked():
    """A hand that is sure speaks for a person until the detector, looking, does not see one."""
    s, fake = stream([ONE, TWO], detector_every_n=4, detector_still_n=1)
    for i in range(9):
        if i == 2:
            fake.hidden = {1}
            fake._pose = lambda box, pose=fake._pose: _hand_of(pose(box), box.box_xywh[0] > 300)
        states = {person.id: person.track_state for person in s.estimate(IMAGE, 0.1 * i).people}
        assert states["1"] is (TrackState.TRACKED if i > 1 else TrackState.TENTATIVE)
        if 2 <= i < 4:
            assert states["2"] is TrackState.TRACKED
    assert fake.detections >= 2 and states["2"] is TrackState.COASTING


def _hand_of(person, is_one):
    if is_one:
        person.keypoint_scores = np.full_like(person.keypoint_scores, 0.1)
        person.keypoint_scores[91:112] = 0.8
    return person


def test_two_tracks_do_not_show_one_person_between_detections():
    s, fake = stream([ONE], detector_every_n=50, detector_still_n=50)
    s.estimate(IMAGE, 0.0)
    track, = s._tracker.tracks
    fake._pose = lambda box, pose=fake._pose: (
        _shifted(pose(box), 6.5) if box.box_xywh[3] < 100 else pose(box))
    s._tracker.tracks.append(replace(
        track, id="7", box_xywh=np.array([100.0, 100.0, 80.0, 76.0]), box_score=0.5))
    frame = s.estimate(IMAGE, 0.1)
    assert [person.id for person in frame.people if person.score > 0] == ["1"]


def _shifted(person, pixels):
    person.keypoints_xy = person.keypoints_xy + [pixels, 0.0]
    return person


def test_a_detection_is_believed_even_where_no_keypoint_is_sure():
    """Somebody far away: the detector vouches for them in every image, the track cannot."""
    s, fake = stream([ONE, TWO], detector_every_n=10)
    fake._pose = lambda box, pose=fake._pose: _unsure(pose(box))
    for i in range(5):
        frame = s.estimate(IMAGE, 0.1 * i)
        assert ids(frame) == ["1", "2"] and fake.detections == i + 1
    assert frame.people[0].track_state is TrackState.TRACKED
    fake.hidden = {0, 1}  # nobody vouches for them any more
    states = [person.track_state for person in s.estimate(IMAGE, 0.5).people]
    assert states == [TrackState.COASTING] * 2


def _unsure(person):
    person.keypoint_scores = np.full_like(person.keypoint_scores, 0.1)
    return person


def test_scores_do_not_fade_from_image_to_image():
    """A track's box has the score of the detection that it comes from, not of the person."""
    s, fake = stream([ONE])
    scores = [s.estimate(IMAGE, 0.1 * i).people[0].score for i in range(6)]
    np.testing.assert_allclose(scores, 0.9 * 0.8)


def test_given_boxes_are_what_is_looked_at():
    s, fake = stream([ONE, TWO])
    frame = s.estimate(IMAGE, 0.0, boxes=[Detection2D(PERSON, 1.0, np.array(TWO, float))])
    assert len(frame.people) == 1 and fake.detections == 0
    assert s.estimate(IMAGE, 0.1, boxes=[]).people == []


def test_without_tracking_there_is_no_state():
    s, fake = stream([ONE], tracking=None, boxes_from_tracks=False)
    for stamp in (5.0, 1.0):
        person, = s.estimate(IMAGE, stamp).people
        assert (person.id, person.track_state) == ("", TrackState.TENTATIVE)
    assert fake.detections == 2


def test_time_that_goes_back_and_reset_start_anew():
    s, fake = stream([ONE], detector_every_n=100)
    s.estimate(IMAGE, 50.0)
    assert ids(s.estimate(IMAGE, 10.0)) == ["2"]
    s.reset()
    assert ids(s.estimate(IMAGE, 10.1)) == ["3"]
    assert fake.detections == 3


def test_depth_gives_metres_and_smoothing_calms_both():
    s, fake = stream([ONE], smoothing=SmoothingOptions(0.5, 0.0))
    depth = np.full((480, 640), 2.0, np.float32)
    first = s.estimate(IMAGE, 0.0, depth=depth, camera=CAMERA).people[0]
    assert first.keypoints_xyz[0, 2] == 2.0
    np.testing.assert_allclose(first.keypoints_xyz[0, :2],
                               (first.keypoints_xy[0] - (320, 240)) / 500 * 2.0)
    fake.people = [fake.people[0] + (10, 0, 0, 0)]
    second = s.estimate(IMAGE, 0.1, depth=depth + 0.1, camera=CAMERA).people[0]
    moved = second.keypoints_xy[:, 0] - first.keypoints_xy[:, 0]
    assert (0 < moved).all() and (moved < 4).all()
    assert 2.0 < second.keypoints_xyz[0, 2] < 2.04
    third = s.estimate(IMAGE, 0.2).people[0]
    assert third.keypoints_xyz is None


def test_stages_are_complete():
    s, _ = stream([ONE])
    assert set(s.estimate(IMAGE, 0.0).timing_ms) == set(STREAM_STAGES)


def test_options_may_change_while_it_runs():
    s, fake = stream([ONE], detector_every_n=1)
    s.estimate(IMAGE, 0.0)
    s.options = StreamOptions(TrackingOptions(confirm_frames=1), detector_every_n=50)
    person, = s.estimate(IMAGE, 0.1).people
    assert (person.id, person.track_state) == ("1", TrackState.TRACKED)
    assert fake.detections == 1


def test_bad_inputs_are_named():
    s, _ = stream([ONE])
    depth = np.ones((480, 640), np.float32)
    with pytest.raises(ValueError, match="depth is given without a camera"):
        s.estimate(IMAGE, 0.0, depth=depth)
    with pytest.raises(ValueError, match="320x240, the colour image 640x480"):
        s.estimate(IMAGE, 0.0, depth=np.ones((240, 320), np.float32), camera=CAMERA)
    with pytest.raises(ValueError, match="stamp_s"):
        s.estimate(IMAGE, float("nan"))
    with pytest.raises(ValueError, match="detector_every_n must be at least 1"):
        StreamOptions(detector_every_n=0)
    with pytest.raises(ValueError, match="detector_still_n must be at least 1"):
        StreamOptions(detector_still_n=0)
    with pytest.raises(ValueError, match="boxes_from_tracks needs tracking"):
        StreamOptions(tracking=None)
    with pytest.raises(ValueError, match="smoothing needs tracking"):
        StreamOptions(tracking=None, boxes_from_tracks=False, smoothing=SmoothingOptions())


def dressed(fake, colours, channels=(0, 1, 2)):
    """An image of people in one colour (BGR) each, where `fake` sees them."""
    image = IMAGE.copy()
    for box, colour in zip(fake.people, colours):
        x, y, w, h = box.astype(int)
        image[y:y + h, x:x + w] = colour
    return np.ascontiguousarray(image[:, :, list(channels)])


@pytest.mark.parametrize(("order", "channels"), [("bgr", (0, 1, 2)), ("rgb", (2, 1, 0))])
@pytest.mark.parametrize(("appearance", "known"), [(True, ["1"]), (False, ["2"])])
def test_who_comes_back_in_the_same_clothes(order, channels, appearance, known):
    s, fake = stream([ONE], tracking=TrackingOptions(appearance=appearance))
    for i in range(5):
        s.estimate(dressed(fake, [(0, 0, 200)], channels), 0.1 * i, channel_order=order)
    fake.people = []
    for i in range(5, 15):
        s.estimate(IMAGE, 0.1 * i, channel_order=order)
    fake.people = [np.array(TWO, float)]
    frame = s.estimate(dressed(fake, [(0, 0, 200)], channels), 1.5, channel_order=order)
    assert ids(frame) == known


def test_blue_is_not_red_whatever_the_order_of_channels():
    s, fake = stream([ONE])
    for i in range(5):
        s.estimate(dressed(fake, [(0, 0, 200)]), 0.1 * i)
    fake.people = []
    for i in range(5, 15):
        s.estimate(IMAGE, 0.1 * i)
    fake.people = [np.array(TWO, float)]
    image = dressed(fake, [(0, 0, 200)])
    assert ids(s.estimate(image, 1.5, channel_order="rgb")) == ["2"]  # these bytes are blue
    assert ids(s.estimate(image, 1.6)) == ["1"]


def test_small_people_have_no_look():
    """25 px: root of the box's area, which is what the tracker counts in."""
    s, fake = stream([(100, 100, 15, 40)])
    for i in range(5):
        s.estimate(dressed(fake, [(0, 0, 200)]), 0.1 * i)
    fake.people = []
    for i in range(5, 15):
        s.estimate(IMAGE, 0.1 * i)
    fake.people = [np.array((130, 100, 15, 40), float)]
    assert ids(s.estimate(dressed(fake, [(0, 0, 200)]), 1.5)) == ["2"]
