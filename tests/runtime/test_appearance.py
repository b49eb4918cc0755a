"""kd_pose.appearance."""

import numpy as np
import pytest

from kd_pose.appearance import CELLS, COLOUR_STEP, GRID, WORN, blended, likeness, looks
from kd_pose.wholebody_keypoints import COUNT

TRUNK, ARMS, THIGHS, SHINS = range(WORN)
RED, BLUE, GREEN = (0, 0, 200), (200, 0, 0), (0, 150, 0)
# Shoulders 40 wide at y 20, hips at 80, knees at 130, ankles at 180, arms out to the sides.
JOINTS = {5: (120, 20), 6: (80, 20), 7: (150, 30), 8: (50, 30), 11: (115, 80), 12: (85, 80),
          13: (115, 130), 14: (85, 130), 15: (115, 180), 16: (85, 180)}
SIZE = 100.0  # root of the box's area


def standing(x=0.0):
    xy = np.full((COUNT, 2), np.nan)
    for joint, place in JOINTS.items():
        xy[joint] = place
    return xy + [x, 0.0]


def dressed(image, x, trunk, legs):
    """Colour where the person of `standing(x)` is: down to the hips, and below."""
    x = int(x)
    image[15:90, 40 + x:160 + x] = trunk
    image[90:190, 70 + x:130 + x] = legs
    return image


def seen(image, *people, sizes=None, **options):
    xy = np.array(people).reshape(-1, COUNT, 2)
    sure = np.isfinite(xy).all(axis=2)
    return looks(image, xy, sure, np.full(len(xy), SIZE) if sizes is None else sizes, **options)


@pytest.fixture
def scene():
    image = np.zeros((200, 800, 3), np.uint8)
    dressed(image, 0, RED, BLUE)
    dressed(image, 200, RED, GREEN)
    return dressed(image, 400, RED, BLUE)


def test_a_look_is_a_distribution_for_every_part(scene):
    look = seen(scene, standing())[0]
    assert look.shape == (WORN, CELLS) and np.allclose(look.sum(axis=1), 1.0)
    assert (look >= 0).all()
    # One colour has eight cells around it at most.
    assert (look[TRUNK] > 0).sum() <= 8 and (look[SHINS] > 0).sum() <= 8


def test_the_colour_of_a_part_by_hand():
    """Grey has a = b = 128, on a line of the grid: two cells share it, by lightness."""
    assert 128 % COLOUR_STEP == 0
    image = np.full((200, 200, 3), 119, np.uint8)  # L* 50.0, 127.5 of 255: 127 or 128
    look = seen(image, standing())[0, TRUNK].reshape(GRID)
    lightness = 128 / 32 if look[4, 8, 8] == pytest.approx(1.0) else 127 / 32
    assert look[3, 8, 8] == pytest.approx(4 - lightness)
    assert look[3:5, 8, 8].sum() == pytest.approx(1.0)


def test_who_wears_the_same_is_alike(scene):
    a, b, c = seen(scene, standing(), standing(200), standing(400))
    alike = likeness([a, b, c], [a, b, c])
    assert np.allclose(np.diag(alike), 1.0) and np.allclose(alike, alike.T)
    assert alike[0, 2] == pytest.approx(1.0)
    # Trunk and arms are the same, thighs (but at the hips) and shins are not.
    assert 0.5 <= alike[0, 1] < 0.65


def test_likeness_is_the_bhattacharyya_coefficient():
    a, b = np.zeros((2, WORN, CELLS))
    a[TRUNK, :2] = [0.5, 0.5]
    b[TRUNK, :2] = [0.1, 0.9]
    a[ARMS, 7] = 1.0  # known of one only
    by_hand = np.sqrt(0.5 * 0.1) + np.sqrt(0.5 * 0.9)
    assert likeness([a], [b])[0, 0] == pytest.approx(by_hand)
    assert np.isnan(likeness([a], [np.zeros((WORN, CELLS))])).all()
    assert likeness([], [a]).shape == (0, 1) and likeness([a], []).shape == (1, 0)


def test_light_and_places_change_little(scene):
    a = seen(scene, standing())
    darker = seen((scene * 0.9).astype(np.uint8), standing())
    moved = seen(scene, standing() + [3.0, -2.0])
    assert likeness(a, darker)[0, 0] > 0.6 and likeness(a, moved)[0, 0] > 0.9


def test_channel_order(scene):
    a = seen(scene, standing())
    assert np.allclose(seen(np.ascontiguousarray(scene[:, :, ::-1]), standing(),
                            channel_order="rgb"), a)
    assert likeness(a, seen(scene, standing(), channel_order="rgb"))[0, 0] < 0.2


def test_parts_that_are_not_sure_or_outside_are_not_known(scene):
    xy = standing()
    xy[[7, 8]] = np.nan
    xy[[15, 16]] += [0, 2000]
    known = seen(scene, xy)[0].any(axis=1)
    assert known.tolist() == [True, False, True, False]
    assert not seen(scene, standing(-1000)).any() and not seen(scene, np.full((COUNT, 2), np.nan)
                                                               ).any()
    assert seen(scene).shape == (0, WORN, CELLS)


def test_at_the_border_of_the_image():
    image = np.full((200, 200, 3), 50, np.uint8)
    for way in ((-50.4, 0), (49.4, 0), (0, -20.4), (0, 19.4)):
        assert seen(image, standing() + way)[0].any(axis=1).all()


def test_what_may_be_somebody_else_is_not_known(scene):
    behind = standing(5)
    alone, = seen(scene, standing())
    assert alone.any(axis=1).all()
    two = seen(scene, standing(), behind)
    # Trunks and legs are mixed up; of the arms some places are far from all of the other's.
    assert not two[:, [TRUNK, THIGHS, SHINS]].any()
    assert np.allclose(seen(scene, standing(), standing(200))[0], alone)
    # 12 px beside each other legs are clear of each other (7 px, by the size), 6 px they are not.
    assert seen(scene, standing(), standing(12))[:, SHINS].any(axis=1).all()
    assert not seen(scene, standing(), standing(6))[:, SHINS].any()
    # Somebody small takes less away.
    assert seen(scene, standing(), behind, sizes=np.array([100.0, 1.0]))[0].any()


def test_who_is_tiny_has_no_look(scene):
    assert seen(scene, standing(), sizes=np.array([32.0])).any()
    assert not seen(scene, standing(), sizes=np.array([31.0])).any()


def test_a_part_needs_some_places():
    """Of two upper arms of 8 places each one hangs out of the image, but for some places."""
    image = np.full((200, 200, 3), 50, np.uint8)
    # Its places are at 77 - 3.43 i; of the eight, six or five are at 0 or more.
    for outside, known in ((59.5, True), (63.0, False)):
        xy = standing()
        xy[7] = np.nan  # one arm is not sure
        xy[[6, 8]] -= [outside, 0]  # of the other a part is outside
        assert seen(image, xy)[0, ARMS].any() == known


def test_least_parts(scene):
    a, b = seen(scene, standing(), standing(400))
    b[2:] = 0
    assert likeness([a], [b], 2)[0, 0] == pytest.approx(1.0)
    assert np.isnan(likeness([a], [b], 3)[0, 0])


def test_looks_blend_part_by_part():
    old, new = np.zeros((2, WORN, CELLS))
    old[TRUNK, 0] = old[ARMS, 1] = new[TRUNK, 2] = new[SHINS, 3] = 1.0
    result = blended(old, new, 0.25)
    assert result[TRUNK, [0, 2]].tolist() == [0.75, 0.25]
    assert result[ARMS, 1] == result[SHINS, 3] == 1.0 and not result[THIGHS].any()
    assert old[TRUNK, 0] == 1.0
