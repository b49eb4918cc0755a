"""Which messages belong together, counted to the last one."""

# ruff: noqa: E402
import threading
import time

import pytest

pytest.importorskip("rclpy")

from kd_pose.nodes.sync import MAX_WAITING, FrameSync


def counts(sync):
    c = sync.counters
    return (c.received, c.replaced, c.unsynced)


def test_without_partners_the_newest_is_taken():
    sync = FrameSync()
    for stamp in (1, 2, 3):
        sync.add_image(stamp, f"i{stamp}")
    frame = sync.take(0)
    assert (frame.stamp, frame.image, frame.partners) == (3, "i3", {})
    assert sync.take(0) is None
    assert counts(sync) == (3, 2, 0)


@pytest.mark.parametrize("info_first", [True, False])
def test_exact_stamps_in_either_order(info_first):
    sync = FrameSync(exact=("camera_info",))
    if info_first:
        sync.add_partner("camera_info", 7, "info")
    sync.add_image(7, "image")
    if not info_first:
        assert sync.take(0) is None
        sync.add_partner("camera_info", 7, "info")
    frame = sync.take(0)
    assert (frame.image, frame.partners) == ("image", {"camera_info": "info"})


def test_an_image_without_its_info_is_overtaken_and_counted():
    sync = FrameSync(exact=("camera_info",))
    sync.add_image(1, "a")
    sync.add_image(2, "b")
    sync.add_partner("camera_info", 2, "info")
    assert sync.take(0).image == "b"
    assert counts(sync) == (2, 0, 1)
    assert sync.missing == {"camera_info": 1}
    sync.add_partner("camera_info", 1, "late")  # too late: never goes back in time
    assert sync.take(0) is None


def test_all_partners_are_needed():
    sync = FrameSync(exact=("camera_info", "boxes"))
    sync.add_image(1, "a")
    sync.add_partner("camera_info", 1, "info")
    assert sync.take(0) is None
    sync.add_partner("boxes", 1, "boxes")
    assert sync.take(0).partners == {"camera_info": "info", "boxes": "boxes"}


def test_latest_uses_the_last_info_and_waits_for_the_first():
    sync = FrameSync(latest=("camera_info",))
    sync.add_image(1, "a")
    assert sync.take(0) is None
    sync.add_partner("camera_info", 999, "old")
    assert sync.take(0).image == "a"
    sync.add_partner("camera_info", 1000, "new")
    sync.add_image(2, "b")
    assert sync.take(0).partners == {"camera_info": "new"}


def test_a_loop_that_goes_back_in_time_goes_on():
    sync = FrameSync(exact=("camera_info",))
    for stamp in (100, 200, 100, 200):
        sync.add_partner("camera_info", stamp, stamp)
        sync.add_image(stamp, stamp)
        assert sync.take(0).stamp == stamp
    assert counts(sync) == (4, 0, 0)


def test_waiting_images_are_limited_in_number_and_time():
    sync = FrameSync(exact=("camera_info",), timeout_s=0.05)
    for stamp in range(MAX_WAITING + 3):
        sync.add_image(stamp, stamp)
    assert sync.counters.unsynced == 3
    time.sleep(0.06)
    sync.expire()
    assert sync.counters.unsynced == MAX_WAITING + 3
    assert sync.missing["camera_info"] == MAX_WAITING + 3


def test_an_image_with_the_same_stamp_replaces_the_waiting_one():
    sync = FrameSync(exact=("camera_info",))
    sync.add_image(1, "a")
    sync.add_image(1, "b")
    sync.add_partner("camera_info", 1, "info")
    assert sync.take(0).image == "b"
    assert counts(sync) == (2, 0, 1)


def test_take_waits_and_close_wakes():
    sync = FrameSync()
    taken = []
    thread = threading.Thread(target=lambda: [taken.append(sync.take(5)) for _ in range(2)])
    thread.start()
    time.sleep(0.02)
    sync.add_image(1, "a")
    time.sleep(0.02)
    sync.close()
    thread.join(2)
    assert not thread.is_alive()
    assert taken[0].image == "a" and taken[1] is None


def test_clear_forgets_messages_and_counters():
    sync = FrameSync(exact=("camera_info",), latest=("boxes",))
    sync.add_image(1, "a")
    sync.add_partner("boxes", 1, "b")
    sync.clear(counters=True)
    sync.add_partner("camera_info", 1, "info")
    assert sync.take(0) is None and counts(sync) == (0, 0, 0)


def test_a_partner_may_be_a_little_beside_where_that_is_allowed():
    """Depth of a camera whose two sensors are not triggered together."""
    sync = FrameSync(exact=("camera_info", "depth"), tolerance_ns={"depth": 10})
    sync.add_partner("depth", 95, "d95")
    sync.add_partner("depth", 111, "d111")
    sync.add_image(100, "image")
    sync.add_partner("camera_info", 101, "i101")  # only depth has a tolerance
    assert sync.take(0.0) is None
    sync.add_partner("camera_info", 100, "i100")
    frame = sync.take(0.0)
    assert frame.partners == {"camera_info": "i100", "depth": "d95"}
    sync.add_partner("camera_info", 120, "i120")
    sync.add_image(120, "image")
    assert sync.take(0.0).partners["depth"] == "d111"


def test_the_nearest_of_several_is_taken_and_the_past_forgotten():
    sync = FrameSync(exact=("depth",), tolerance_ns={"depth": 10})
    for stamp in (92, 97, 104):
        sync.add_partner("depth", stamp, stamp)
    sync.add_image(100, "image")
    assert sync.take(0.0).partners == {"depth": 97}
    sync.add_image(94, "an older image comes late")
    assert sync.take(0.0).partners == {"depth": 97}  # 92 belongs to the past
    sync.add_image(200, "image")
    assert sync.take(0.0) is None and sync.missing == {}


def test_when_an_image_last_had_all_it_needs():
    sync = FrameSync(exact=("boxes",))
    assert sync.completed_at == -float("inf")
    sync.add_image(1, "a")
    assert sync.completed_at == -float("inf")
    before = time.perf_counter()
    sync.add_partner("boxes", 1, "boxes")
    assert before <= sync.completed_at <= time.perf_counter()
    last = sync.completed_at
    sync.add_image(2, "b")  # boxes come more rarely
    assert sync.completed_at == last
