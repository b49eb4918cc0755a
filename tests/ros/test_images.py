"""Image messages to arrays: views where possible, clear errors where not."""

# ruff: noqa: E402
import array

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy")

from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from kd_pose.nodes.images import (
    ImageError,
    byte_array,
    colour_from_compressed,
    colour_from_image,
    compressed_message,
    depth_from_image,
    image_message,
)


def message(rows, width, encoding, step=None, big=0):
    """Image from bytes per row, each padded with 77 up to `step`."""
    step = step or len(rows[0])
    data = b"".join(row + bytes([77]) * (step - len(row)) for row in rows)
    return Image(height=len(rows), width=width, encoding=encoding, step=step, is_bigendian=big,
                 data=array.array("B", data))


def test_bgr8_is_a_view_also_with_padding():
    msg = message([bytes([1, 2, 3, 4, 5, 6]), bytes([7, 8, 9, 10, 11, 12])], 2, "bgr8", step=8)
    image, order = colour_from_image(msg)
    assert order == "bgr"
    assert image.tolist() == [[[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [10, 11, 12]]]
    assert np.shares_memory(image, np.frombuffer(msg.data, np.uint8))


@pytest.mark.parametrize("encoding, pixel, expected, order", [
    ("rgb8", [10, 20, 30], [10, 20, 30], "rgb"),
    ("bgra8", [10, 20, 30, 99], [10, 20, 30], "bgr"),
    ("rgba8", [10, 20, 30, 99], [10, 20, 30], "rgb"),
    ("mono8", [50], [50, 50, 50], "bgr"),
    ("8UC3", [10, 20, 30], [10, 20, 30], "bgr"),
])
def test_colour_encodings(encoding, pixel, expected, order):
    image, found = colour_from_image(message([bytes(pixel * 3)] * 2, 3, encoding, step=16))
    assert (image.shape, found) == ((2, 3, 3), order)
    assert image[1, 2].tolist() == expected


@pytest.mark.parametrize("big", [0, 1])
def test_depth_in_millimetres_of_either_byte_order(big):
    row = np.array([0, 1500, 65535], dtype=">u2" if big else "<u2").tobytes()
    depth = depth_from_image(message([row, row], 3, "16UC1", step=8, big=big))
    assert depth.dtype == np.float32
    np.testing.assert_allclose(depth[1], [0.0, 1.5, 65.535], rtol=1e-6)


@pytest.mark.parametrize("big", [0, 1])
def test_depth_in_metres_of_either_byte_order(big):
    row = np.array([np.nan, 0.25], dtype=">f4" if big else "<f4").tobytes()
    np.testing.assert_array_equal(
        depth_from_image(message([row], 2, "32FC1", step=12, big=big)), [[np.nan, 0.25]])


@pytest.mark.parametrize("change, text", [
    (dict(step=5), "step is 5"),
    (dict(height=3), "needs 18"),
    (dict(width=0), "empty"),
    (dict(encoding="yuv422_yuy2"), "yuv422_yuy2"),
])
def test_messages_that_contradict_themselves(change, text):
    msg = message([bytes(6), bytes(6)], 2, "bgr8")
    for name, value in change.items():
        setattr(msg, name, value)
    with pytest.raises(ImageError, match=text):
        colour_from_image(msg)


def test_depth_of_another_encoding_is_refused():
    with pytest.raises(ImageError, match="bgr8"):
        depth_from_image(message([bytes(6)], 2, "bgr8"))


def test_compressed_there_and_back():
    image = np.zeros((20, 30, 3), np.uint8)
    image[:, :, 2] = 200  # red in BGR
    for order, given in (("bgr", image), ("rgb", image[..., ::-1].copy())):
        msg = compressed_message(given, Header(frame_id="c"), order, quality=95)
        found, found_order = colour_from_compressed(msg)
        assert (found_order, msg.header.frame_id) == ("bgr", "c")
        assert np.abs(found.astype(int) - image).max() < 6


CUT_PNG = cv2.imencode(".png", np.ones((9, 9), np.uint8))[1].tobytes()[:20]


@pytest.mark.parametrize("data", [b"", b"junk", CUT_PNG], ids=["empty", "junk", "cut"])
def test_damaged_compressed_images(data):
    with pytest.raises(ImageError, match="cannot be decoded"):
        colour_from_compressed(CompressedImage(format="jpeg", data=data))


def test_compressed_depth_is_not_colour():
    with pytest.raises(ImageError, match="compressedDepth"):
        colour_from_compressed(CompressedImage(format="16UC1; compressedDepth png", data=b"x"))


def test_image_message_and_byte_array():
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    msg = image_message(image[:, ::-1], Header(frame_id="c"), "rgb8")
    assert (msg.height, msg.width, msg.step, msg.encoding) == (2, 4, 12, "rgb8")
    np.testing.assert_array_equal(colour_from_image(msg)[0], image[:, ::-1])
    assert byte_array(np.array([1, 256], dtype="<u2")).tolist() == [1, 0, 0, 1]
