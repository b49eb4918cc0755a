"""kd_pose.stillness: what counts as having moved."""

import numpy as np
import pytest

from kd_pose.stillness import CHANGE, Stillness

GREY = np.full((540, 960, 3), 100, np.uint8)  # cells of 10 x 10 px


def changed(y, x, height, width, by):
    image = GREY.copy()
    image[y:y + height, x:x + width] += np.uint8(by)
    return image


def still(*boxes):
    found = Stillness()
    found.remember(GREY, [np.array(box, float) for box in boxes])
    return found


def test_before_anything_is_remembered_and_at_another_size_all_is_new():
    assert Stillness().moved(GREY, [])
    assert still().moved(GREY[:500], [])
    found = still()
    found.forget()
    assert found.moved(GREY, [])


def test_a_cell_that_changes_is_seen_and_noise_is_not():
    assert not still().moved(GREY, [])
    assert still().moved(changed(200, 300, 10, 10, CHANGE + 2), [])
    assert not still().moved(changed(200, 300, 10, 10, CHANGE - 2), [])
    noisy = GREY + np.random.default_rng(0).integers(0, 20, GREY.shape, dtype=np.uint8)
    assert not still().moved(noisy, [])


def test_the_light_may_change():
    assert not still().moved(GREY + np.uint8(40), [])


@pytest.mark.parametrize("where, seen", [
    ((200, 300, 100, 50), False),   # in the box
    ((190, 293, 120, 64), False),   # in its margin
    ((150, 300, 20, 20), True)])    # above
def test_known_boxes_do_not_count(where, seen):
    """Box of 50 x 100 px at (300, 200): its margin is 7.5 and 15 px, to whole cells."""
    image = changed(*where, 60)
    box = np.array([300.0, 200.0, 50.0, 100.0])
    assert still(box).moved(image, []) == seen
    assert still().moved(image, [box]) == seen


def test_boxes_beyond_the_edge_and_over_everything():
    image = changed(0, 0, 30, 30, 60)
    assert not still((-50.0, -50.0, 100.0, 100.0)).moved(image, [])
    assert still((-300.0, -300.0, 100.0, 100.0)).moved(image, [])
    assert not still((-10.0, -10.0, 2000.0, 2000.0)).moved(image, [])


def test_small_images_are_compared_pixel_by_pixel():
    small = np.zeros((4, 6, 3), np.uint8)
    found = Stillness()
    found.remember(small, [])
    other = small.copy()
    other[1, 2] = 200
    assert found.moved(other, []) and not found.moved(small, [])
