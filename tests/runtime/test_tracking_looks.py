"""kd_pose.tracking: what clothes have to say of who is who."""

import numpy as np
import pytest

from kd_pose.appearance import CELLS, WORN
from kd_pose.results import PersonPose, TrackState
from kd_pose.tracking import MOST_REMEMBERED, PeopleTracker, TrackingOptions, _say
from kd_pose.wholebody_keypoints import COUNT

T, K, C, L = TrackState.TENTATIVE, TrackState.TRACKED, TrackState.COASTING, TrackState.LOST
IMAGE = (2000, 600)
POINTS = np.random.default_rng(3).random((COUNT, 2))
POINTS[:2] = [[0.0, 0.0], [1.0, 1.0]]  # the box around the points is the box
RED, BLUE, GREEN, NOTHING = 0, 1000, 2000, None


def person(x, y=100.0):
    points = np.array([x, y]) + POINTS * (100.0, 200.0)
    return PersonPose(np.array([x, y, 100.0, 200.0]), 0.9, points, np.full(COUNT, 0.8))


def look(colour, other=0.0):
    """All of one colour, but `other` of every part."""
    result = np.zeros((WORN, CELLS))
    if colour is not NOTHING:
        result[:, colour], result[:, colour + 500] = 1.0 - other, other
    return result


class Film:
    """Images ten times a second of (x, colour)."""

    def __init__(self, **options):
        self.tracker, self.index = PeopleTracker(TrackingOptions(**options)), 0

    def show(self, *people, times=1, looks=True):
        for _ in range(times):
            worn = np.array([look(colour) for _, colour in people]).reshape(-1, WORN, CELLS)
            seen = self.tracker.update([person(x) for x, _ in people], 0.1 * self.index, IMAGE,
                                       looks=worn if looks else None)
            self.index += 1
        return [(p.id, p.track_state) for p in seen]


def film_of_one(colour=RED, **options):
    film = Film(**options)
    film.show((100, colour), times=5)
    return film


@pytest.mark.parametrize(("appearance", "ids"), [(True, "21"), (False, "12")])
def test_of_two_who_pass_each_other_clothes_tell_who_is_who(appearance, ids):
    film = Film(appearance=appearance)
    film.show((100, RED), (160, BLUE), times=5)
    # By places alone the left one stays the left one.
    seen = film.show((125, BLUE), (135, RED))
    assert [name for name, _ in seen] == list(ids)


def test_what_clothes_say_by_hand():
    likeness = np.array([1.0, 0.8, 0.4, 0.0, np.nan])
    assert _say(likeness).tolist() == pytest.approx([1.0, 1.0, 0.25, 0.2, 0.4])


def test_unknown_clothes_change_nothing():
    frames = [[(100 + 8 * i, NOTHING), (400 - 9 * i, NOTHING)] for i in range(20)]
    frames[12:14] = [[frames[12][0]], []]
    known, unknown, off = Film(), Film(), Film(appearance=False)
    for frame in frames:
        expected = off.show(*frame)
        assert known.show(*frame) == unknown.show(*frame, looks=False) == expected


def test_when_light_changes_for_everybody_they_stay_who_they_are():
    film = Film()
    film.show((100, RED), (400, BLUE), times=5)
    assert film.show((102, GREEN), (402, GREEN + 50)) == [("1", K), ("2", K)]


def test_who_comes_back_is_known_again_at_once():
    film = film_of_one()
    assert film.show(times=7) == []  # LOST was told in the sixth
    assert film.show((420, RED)) == [("1", K)]
    assert film.show((422, RED), (100, GREEN)) == [("1", K), ("2", T)]


@pytest.mark.parametrize(("options", "away", "x", "colour"), [
    ({"remember_s": 0.0}, 10, 420, RED),
    ({"appearance": False}, 10, 420, RED),
    ({"remember_s": 2.0}, 25, 420, RED),
    ({}, 10, 1800, RED),  # 1700 px in 1.1 s: more than (1 + 4 * 1.1) * 141
    ({}, 10, 420, BLUE),
    ({}, 10, 420, NOTHING),
])
def test_who_is_not_known_again(options, away, x, colour):
    film = film_of_one(**options)
    film.show(times=away)
    assert film.show((x, colour)) == [("2", T)]


def test_options_also_hold_for_who_coasts():
    for options, away in (({"remember_s": 0.0}, 2), ({"remember_s": 0.25}, 3)):
        film = film_of_one(max_coast_s=5.0, **options)
        film.show(times=away)
        assert film.show((420, RED)) == [("2", T), ("1", C)]


def test_ids_of_an_image_are_different():
    """Somebody who is lost and known again over and over, and then stays."""
    film = Film()
    film.show((100, RED), (600, BLUE), times=5)
    for x in (300, 100, 300):
        film.show((600, BLUE), times=8)
        assert film.show((x, RED), (600, BLUE)) == [("1", K), ("2", K)]
    film.show((x, RED), (600, BLUE), times=4)
    assert film.show((x, RED), (600, BLUE), (1000, RED)) == [("1", K), ("2", K), ("3", T)]
    assert film.tracker._remembered == []


def test_nobody_is_known_again_where_two_look_alike():
    film = Film()
    film.show((100, RED), (600, RED), times=5)
    film.show((600, RED), times=8)
    # Whether this is 1, or somebody else in the same uniform, nothing says.
    assert film.show((600, RED), (300, RED)) == [("2", K), ("3", T)]
    both = Film()
    both.show((100, RED), (600, RED), times=5)
    both.show(times=8)
    assert both.show((350, RED)) == [("3", T)]
    newcomers = film_of_one()
    newcomers.show(times=8)
    assert newcomers.show((300, RED), (900, RED)) == [("2", T), ("3", T)]


def test_who_is_missed_in_this_image_is_still_somebody_who_looks_alike():
    film = Film()
    film.show((100, RED), (300, RED), times=5)
    film.show((300, RED), times=8)  # 1 is lost
    # 2 is not found where it was a moment ago, somebody alike is somewhere else.
    assert film.show((550, RED)) == [("3", T), ("2", C)]


def test_who_is_half_alike_is_somebody_else():
    film = film_of_one()
    film.show(times=8)
    half = np.array([look(RED)])
    half[0, 2:] = look(BLUE)[2:]
    seen = film.tracker.update([person(300)], 2.0, IMAGE, looks=half)
    assert [p.id for p in seen] == ["2"]


def test_one_part_says_too_little():
    film = film_of_one()
    film.show(times=8)
    trunk = np.array([look(RED)])
    trunk[0, 1:] = 0.0
    seen = film.tracker.update([person(300)], 2.0, IMAGE, looks=trunk)
    assert [p.id for p in seen] == ["2"]
    trunk[0, 1, RED] = 1.0
    seen = film.tracker.update([person(300)], 2.1, IMAGE, looks=trunk)
    assert [p.id for p in seen] == ["1"]


def test_known_again_when_the_clothes_come_into_sight():
    film = film_of_one()
    film.show(times=8)
    assert film.show((300, NOTHING)) == [("2", T)]
    assert film.show((302, RED)) == [("1", K)]
    assert film.show((304, RED)) == [("1", K)]
    assert [track.id for track in film.tracker.tracks] == ["1"]


@pytest.mark.parametrize("away", [2, 8])
def test_who_was_confirmed_stays_so_when_the_options_change(away):
    film = film_of_one()
    film.show(times=away)
    film.tracker.options = TrackingOptions(confirm_frames=100)
    assert film.show((120, RED)) == [("1", K)]


def test_a_confirmed_id_is_kept():
    """Somebody TRACKED does not turn into another one."""
    film = film_of_one()
    film.show(times=8)
    film.show((300, NOTHING), times=3)
    assert film.show((300, RED)) == [("2", K)]


def test_who_coasts_is_known_where_nobody_expects_it():
    film = film_of_one()
    film.show(times=2)
    assert film.show((350, RED)) == [("1", K)]


def test_who_stands_in_front_for_a_while_does_not_become_the_look():
    film = Film()
    film.show((100, RED), times=10)
    film.show((100, BLUE), times=25)  # of somebody in front, whom nobody estimates
    film.show(times=8)
    assert film.show((300, RED)) == [("1", K)]


def test_a_look_follows_slow_changes():
    film = Film()
    film.show((100, RED), times=10)
    for share in np.linspace(0.0, 1.0, 60):
        worn = np.array([look(RED, share)])
        film.tracker.update([person(100)], 0.1 * film.index, IMAGE, looks=worn)
        film.index += 1
    film.show(times=8)
    assert film.show((300, RED + 500)) == [("1", K)]


def test_a_track_begins_with_the_mean_of_its_looks():
    """Half of the first ten images in each of two lights: alike to either, not to one of them."""
    film = Film()
    for _ in range(5):
        film.show((100, RED))
        film.tracker.update([person(100)], 0.1 * film.index, IMAGE,
                            looks=np.array([look(RED, 0.3)]))
        film.index += 1
    worn = film.tracker.tracks[0].look
    np.testing.assert_allclose(worn[0, [RED, RED + 500]], [0.85, 0.15], atol=1e-6)
    film.show((100, RED))
    np.testing.assert_allclose(film.tracker.tracks[0].look[0, RED], 0.865, atol=1e-6)  # a tenth


def test_who_is_known_again_has_no_speed_of_before():
    film = Film()
    for x in range(700, 200, -50):
        film.show((x, RED))
    film.show(times=20)
    film.show((100, RED))
    # Where the first images after the absence show it: no further left than it went in 2 s.
    box = film.tracker.boxes(0.1 * film.index, IMAGE)[0].box_xywh
    assert box[0] + box[2] / 2 == pytest.approx(150, abs=5)


def test_after_a_long_gap_who_is_there_is_known_at_once():
    film = film_of_one()
    film.index += 80
    assert film.show((110, RED)) == [("1", K)]


def test_switched_off_it_forgets_the_clothes():
    film = film_of_one()
    film.show((100, RED), (900, BLUE), times=5)
    film.show((100, RED), times=8)
    film.tracker.options = TrackingOptions(appearance=False)
    film.show((100, RED))
    film.tracker.options = TrackingOptions()
    assert film.show((100, RED), (900, BLUE)) == [("1", K), ("3", T)]


def test_two_come_back_at_once():
    film = Film()
    film.show((100, RED), (600, BLUE), times=5)
    film.show(times=8)
    assert film.show((500, BLUE), (220, RED), (900, GREEN)) == [("2", K), ("1", K), ("3", T)]


def test_reset_forgets_the_lost():
    film = film_of_one()
    film.show(times=8)
    film.tracker.reset()
    assert film.show((300, RED)) == [("2", T)]


def test_unconfirmed_people_are_not_remembered():
    film = Film()
    film.show((100, RED), times=2)
    film.show(times=8)
    assert film.show((100, RED)) == [("2", T)]


def test_only_so_many_are_remembered():
    film = Film(confirm_frames=1, max_coast_s=0.0)
    for number in range(MOST_REMEMBERED + 5):
        film.show((100, 3 * number))
        film.show()
    assert len(film.tracker._remembered) == MOST_REMEMBERED


def test_with_every_person_the_looks_are_those_of_who_is_kept():
    """One person estimated twice: the look of the estimate that stays counts."""
    film = film_of_one()
    film.show(times=8)
    worse = person(301)
    worse.score = 0.5
    seen = film.tracker.update([worse, person(300)], 2.0, IMAGE,
                               looks=np.array([look(BLUE), look(RED)]))
    assert [(p.id, p.track_state) for p in seen] == [("1", K)]


def test_remember_s_is_checked():
    with pytest.raises(ValueError, match="remember_s must be 0 to 3600, got -1"):
        TrackingOptions(remember_s=-1)
