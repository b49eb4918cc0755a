"""From image regions to network input, and points back again.

The one place that fixes pixels: centres are at integer coordinates, pixel i covers
[i - 0.5, i + 0.5), and the continuous extent of an image of width W is [-0.5, W - 0.5]. Every
affine is a (2, 3) matrix from image pixels to input pixels. An input is cut out with a single warp
of the full image: no resampling twice, no float image.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np

GREY = 114  # fills what lies outside the image; the usual letterbox grey (YOLOX)
# OpenCV's bilinear warp takes 2.5 times as long for three channels as for four. Up to this many
# source pixels per output pixel it pays to give the source a fourth channel first.
PADDING_PAYS_UP_TO = 7.0
SIDES_PX = 1e-6, 1e9  # of a box's longer side: beyond, an affine or its inverse overflows
WHOLE_PIXEL = 1e-3  # of the input: nearer than this to a whole pixel is on it
_scratch = threading.local()


def box_affine(box_xywh: Sequence[float], size_wh: Sequence[int], pad: float = 1.5) -> np.ndarray:
    """Image px -> input px (2, 3): the box, `pad` times as large, centred in the input.

    Isotropic: the box is expanded to the aspect of the input, never squeezed.
    box_xywh: continuous edges. size_wh: input width and height.
    Raises ValueError for a box without positive finite size, or of one out of `SIDES_PX`.
    """
    x, y, w, h = (float(value) for value in box_xywh)
    if not (np.isfinite((x, y, w, h)).all() and w > 0 and h > 0):
        raise ValueError(f"box_xywh must be finite with positive size, got {(x, y, w, h)}")
    if not SIDES_PX[0] <= max(w, h) <= SIDES_PX[1]:
        raise ValueError(f"box_xywh must have a longer side of {SIDES_PX[0]:g} to "
                         f"{SIDES_PX[1]:g} pixels, got {(x, y, w, h)}")
    if not pad > 0:
        raise ValueError(f"pad must be positive, got {pad}")
    width, height = size_wh
    scale = min(width / (w * pad), height / (h * pad))
    return _centred_affine(scale, (x + w / 2.0, y + h / 2.0), size_wh)


def letterbox_affine(image_wh: Sequence[int], size_wh: Sequence[int]) -> np.ndarray:
    """Image px -> input px (2, 3): the whole image, isotropic, centred in the input."""
    width, height = image_wh
    scale = min(size_wh[0] / width, size_wh[1] / height)
    return _centred_affine(scale, ((width - 1) / 2.0, (height - 1) / 2.0), size_wh)


def corner_affine(image_wh: Sequence[int], size_wh: Sequence[int]) -> np.ndarray:
    """Image px -> input px (2, 3): the whole image, isotropic, in the input's upper left corner.

    As YOLOX and RTMDet were trained; the corners of both pictures fall together.
    """
    scale = min(size_wh[0] / image_wh[0], size_wh[1] / image_wh[1])
    shift = (scale - 1.0) / 2.0  # from corner to centre of the first pixel and back
    return np.array([[scale, 0.0, shift], [0.0, scale, shift]])


def _centred_affine(scale: float, centre: Sequence[float], size_wh: Sequence[int]) -> np.ndarray:
    """`centre` in the image goes to the centre of the input, which is ((W-1)/2, (H-1)/2)."""
    return np.array(
        [
            [scale, 0.0, (size_wh[0] - 1) / 2.0 - scale * centre[0]],
            [0.0, scale, (size_wh[1] - 1) / 2.0 - scale * centre[1]],
        ]
    )


def apply_affine(M: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Points (..., 2) through an affine (2, 3) -> (..., 2) float64."""
    return np.asarray(xy, dtype=np.float64) @ M[:, :2].T + M[:, 2]


def invert_affine(M: np.ndarray) -> np.ndarray:
    """Affine (2, 3) the other way round, (2, 3)."""
    inverse = np.linalg.inv(M[:, :2])
    return np.concatenate([inverse, -inverse @ M[:, 2:]], axis=1)


def crop_intrinsics(K: np.ndarray, M: np.ndarray) -> np.ndarray:
    """Intrinsics (3, 3) of the warped image: `M` (2, 3) after `K` (3, 3). No distortion."""
    return np.vstack([M, [0.0, 0.0, 1.0]]) @ K


def warp(
    image: np.ndarray,
    M: np.ndarray,
    size_wh: Sequence[int],
    border_value: float | Sequence[float] = GREY,
    nearest: bool = False,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """One warp of `image` (H, W[, C]) to (h, w[, C]) of the same type; `M` is image -> output.

    nearest: for masks and depth, whose values must not be mixed. out: array to write into.
    """
    if isinstance(border_value, (int, float)):
        border_value = (border_value,) * 4
    return cv2.warpAffine(
        image,
        np.asarray(M, dtype=np.float64),
        (int(size_wh[0]), int(size_wh[1])),
        dst=out,
        flags=cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=border_value,
    )


def normalise(
    crop: np.ndarray,
    mean: Sequence[float],
    std: Sequence[float],
    swap_channels: bool = False,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """uint8 (H, W, 3) -> float32 (3, H, W), (value - mean) / std.

    mean, std: three numbers in 0..255 units, in the order of the *output* channels.
    swap_channels: reverse the channels (BGR image, RGB network or the reverse).
    out: float32 (3, H, W) to write into. Channels are split while still bytes, a quarter of the
    memory to move, and scaled in place.
    """
    if crop.ndim != 3 or crop.shape[2] != 3 or crop.dtype != np.uint8:
        raise ValueError(f"crop must be uint8 (H, W, 3), got {crop.dtype} {crop.shape}")
    if out is None:
        out = np.empty((3, crop.shape[0], crop.shape[1]), dtype=np.float32)
    return _normalise_planes(crop, mean, std, swap_channels, out)


def _normalise_planes(crop, mean, std, swap_channels: bool, out: np.ndarray) -> np.ndarray:
    """`normalise` of the first three channels of (H, W, 3 or 4)."""
    plane = _scratch_array("plane", crop.shape[:2])
    for channel in range(3):
        cv2.extractChannel(crop, 2 - channel if swap_channels else channel, dst=plane)
        if mean[channel] == 0 and std[channel] == 1:
            np.copyto(out[channel], plane)
        else:
            table = _table(float(mean[channel]), 1.0 / float(std[channel]))
            cv2.LUT(plane, table, dst=out[channel])
    return out


@lru_cache(maxsize=64)
def _table(mean: float, scale: float) -> np.ndarray:
    """The 256 normalised values: a byte has no more, so no pixel needs arithmetic."""
    return ((np.arange(256, dtype=np.float64) - mean) * scale).astype(np.float32)


def crop_batch(
    image: np.ndarray,
    affines: Sequence[np.ndarray],
    size_wh: Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
    swap_channels: bool = False,
    out: np.ndarray | None = None,
    border_value: float = GREY,
) -> np.ndarray:
    """`image` uint8 (H, W, 3) through B affines (2, 3) -> network input (B, 3, h, w) float32.

    border_value: 0..255, fills what lies outside of the image.
    out: float32 (B, 3, h, w) to write into and return. A caller that runs frame after frame saves
    a quarter of the time by keeping one: fresh megabytes cost the system more than the pixels.
    """
    width, height = int(size_wh[0]), int(size_wh[1])
    shape = (len(affines), 3, height, width)
    batch = np.empty(shape, dtype=np.float32) if out is None else out
    if batch.shape != shape or batch.dtype != np.float32 or not batch.flags.c_contiguous:
        raise ValueError(
            f"out must be contiguous float32 {shape}, got {batch.dtype} {batch.shape}"
        )
    for row, M in enumerate(affines):
        crop = _resized(image, M, (width, height), border_value)
        if crop is None:
            source = _four_channels(image, M, (width, height))
            if source is None:
                source = image
            crop = _scratch_array("crop", (height, width, source.shape[2]))
            warp(source, M, (width, height), border_value, out=crop)
        _normalise_planes(crop, mean, std, swap_channels, batch[row])
    return batch


def _resized(image: np.ndarray, M: np.ndarray, size_wh: tuple[int, int],
             border_value: float) -> np.ndarray | None:
    """The crop (h, w, 3) where `M` scales the whole image onto whole pixels, else None.

    So it is for detectors and most cameras. Resizing samples where the warp would, with finer
    weights (the warp's are in 32 steps, so bytes differ by a few), in a third of its time. The
    result holds until the next call.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"image must be uint8 (H, W, 3), got {image.dtype} {image.shape}")
    (a, b, tx), (c, d, ty) = np.asarray(M, dtype=np.float64).tolist()
    if b or c or a != d or a <= 0:
        return None
    # where the image's corner, (-0.5, -0.5), comes to lie, and how large the image becomes
    exact = tx + 0.5 - 0.5 * a, ty + 0.5 - 0.5 * a, a * image.shape[1], a * image.shape[0]
    x, y, w, h = (round(value) for value in exact)
    inside = x >= 0 and y >= 0 and x + w <= size_wh[0] and y + h <= size_wh[1]
    whole = max(abs(value - near) for value, near in zip(exact, (x, y, w, h))) < WHOLE_PIXEL
    if not (inside and whole and min(w, h) > 0):
        return None
    crop = _scratch_array("crop", (size_wh[1], size_wh[0], 3))
    if (w, h) != tuple(size_wh):
        crop[...] = np.uint8(round(border_value))
    crop[y:y + h, x:x + w] = cv2.resize(image, (w, h), interpolation=cv2.INTER_LINEAR)
    return crop


def crop_pixels(image: np.ndarray, M: np.ndarray, size_wh: tuple[int, int]) -> np.ndarray:
    """`warp` of an `image` uint8 (H, W, 3) -> (h, w, 3), to the bit, in about half the time."""
    source = _four_channels(image, M, size_wh)
    if source is None:
        return warp(image, M, size_wh)
    return cv2.cvtColor(warp(source, M, size_wh), cv2.COLOR_BGRA2BGR)


def _four_channels(
    image: np.ndarray, M: np.ndarray, size_wh: tuple[int, int]
) -> np.ndarray | None:
    """An image (H, W, 4) that equals `image` wherever a warp by `M` looks, or None.

    None where the region is so large that copying it costs more than it saves. The picture is a
    buffer of this thread, as large as the image but filled only in the region, so that `M` and
    with it every rounding stay the same. It holds until the next call.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"image must be uint8 (H, W, 3), got {image.dtype} {image.shape}")
    width, height = size_wh
    x0, y0, x1, y1 = _source_region(M, size_wh, image.shape[1], image.shape[0])
    if (x1 - x0) * (y1 - y0) > PADDING_PAYS_UP_TO * width * height:
        return None
    buffer = _scratch_array("image", (*image.shape[:2], 4))
    if x1 > x0 and y1 > y0:
        cv2.cvtColor(image[y0:y1, x0:x1], cv2.COLOR_BGR2BGRA, dst=buffer[y0:y1, x0:x1])
    return buffer


def _scratch_array(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A uint8 array of this thread that is kept until another shape is asked for."""
    array = getattr(_scratch, name, None)
    if array is None or array.shape != shape:
        array = np.zeros(shape, dtype=np.uint8)
        setattr(_scratch, name, array)
    return array


def _source_region(
    M: np.ndarray, size_wh: tuple[int, int], image_width: int, image_height: int
) -> tuple[int, int, int, int]:
    """Pixels x0, y0, x1, y1 (exclusive ends) that a warp by `M` may look at.

    Plain floats: for one matrix NumPy's calls would cost more than the warp saves.
    """
    (a, b, tx), (c, d, ty) = np.asarray(M, dtype=np.float64).tolist()
    determinant = a * d - b * c
    xs, ys = [], []
    for u in (0.0, size_wh[0] - 1.0):
        for v in (0.0, size_wh[1] - 1.0):
            xs.append((d * (u - tx) - b * (v - ty)) / determinant)
            ys.append((a * (v - ty) - c * (u - tx)) / determinant)
    # a margin of two pixels: one for the interpolation, one for rounding
    return (
        max(0, min(image_width, int(min(xs)) - 2)),
        max(0, min(image_height, int(min(ys)) - 2)),
        max(0, min(image_width, int(max(xs)) + 4)),
        max(0, min(image_height, int(max(ys)) + 4)),
    )
