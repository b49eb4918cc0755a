"""A dense ONNX model that answers with the exact codes of the objects of a scene.

As in `tiny_models` the network looks at nothing. The surface of an object is that of its box, so
that what a pixel sees is a line through six planes.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from helpers.tiny_models import MEAN, STD, Scene, write_constants
from kd_pose.codes import (
    CodeTree,
    build_code_tree,
    code_table_to_text,
    codes_to_bits,
    encode,
    grid_pixels,
)
from kd_pose.crop import apply_affine, box_affine, invert_affine
from kd_pose.geometry import invert_pose, transform_points
from kd_pose.manifest import METADATA_KEY, DenseManifest, ObjectSpec

BITS = 12
MASK_SCORE = 0.9


@lru_cache(maxsize=8)
def box_tree(spec: ObjectSpec, bits: int = BITS) -> CodeTree:
    """Codes of the surface of an object's box, sampled evenly."""
    rng = np.random.default_rng(0)
    low, high = np.array(spec.box_min), np.array(spec.box_max)
    size = high - low
    areas = np.array([size[1] * size[2], size[0] * size[2], size[0] * size[1]])
    count = 4 << bits
    axis = rng.choice(3, count, p=areas / areas.sum())
    share = rng.random((count, 3))
    share[np.arange(count), axis] = rng.integers(0, 2, count)
    return build_code_tree(low + share * size, bits)


def seen_points(scene: Scene, index: int, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What image pixels (n, 2) see of an object's box -> hit (n,) bool, points (n, 3) of it."""
    spec = scene.specs[index]
    straight = scene.camera.undistort(pixels)
    rays = np.concatenate([straight, np.ones((len(straight), 1))], axis=1)
    T_obj_cam = invert_pose(scene.poses[index])
    origin = T_obj_cam[:3, 3]
    rays = transform_points(T_obj_cam, rays @ np.linalg.inv(scene.camera.K).T) - origin
    ends = [(np.array(side) - origin) / rays for side in (spec.box_min, spec.box_max)]
    near, far = np.minimum(*ends).max(axis=1), np.maximum(*ends).min(axis=1)
    return near < far, origin + near[:, None] * rays


def dense_manifest(scene: Scene, **changes) -> DenseManifest:
    values = dict(
        task="object_codes",
        input_size=(128, 128),
        mean=MEAN,
        std=STD,
        channel_order="rgb",
        objects=scene.specs,
        code_tables=tuple(code_table_to_text(box_tree(spec)) for spec in scene.specs),
        covariance_scale=1.0,
        producer="kd_pose tests",
    )
    return DenseManifest(**{**values, **changes})


def dense_answers(
    scene: Scene, manifest: DenseManifest, outliers: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """masks (C, h, w), codes (C, bits, h, w) that are true in a crop around each object's box.

    outliers: share of the pixels whose code is drawn by lot.
    """
    width, height = (size // manifest.stride for size in manifest.input_size)
    masks = np.full((len(scene.specs), height, width), 0.02, dtype=np.float32)
    codes = np.full((len(scene.specs), BITS, height, width), 0.5, dtype=np.float32)
    cells = np.arange(width * height)
    rng = np.random.default_rng(0)
    for index, spec in enumerate(scene.specs):
        M = box_affine(scene.box_xywh(index), manifest.input_size, manifest.crop_pad)
        pixels = apply_affine(invert_affine(M), grid_pixels(cells, width, manifest.stride))
        hit, points = seen_points(scene, index, pixels)
        code = encode(box_tree(spec), points[hit])
        wrong = rng.random(len(code)) < outliers
        code[wrong] = rng.integers(0, 1 << BITS, np.count_nonzero(wrong))
        masks[index].reshape(-1)[hit] = MASK_SCORE
        codes[index].reshape(BITS, -1)[:, hit] = codes_to_bits(code, BITS).T
    return masks, codes


def make_dense_model(
    path: str | Path, scene: Scene, outliers: float = 0.0, **changes
) -> Path:
    """The model at `path`; `changes` are of its manifest."""
    manifest = dense_manifest(scene, **changes)
    masks, codes = dense_answers(scene, manifest, outliers)
    width, height = manifest.input_size
    write_constants(path, (height, width), {"masks": masks, "codes": codes},
                    {METADATA_KEY: manifest.to_json()})
    return Path(path)
