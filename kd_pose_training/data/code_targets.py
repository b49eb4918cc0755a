"""Training targets of the dense networks: which surface code shows at which output pixel.

An object's mesh is sampled once and its code tree built (:mod:`kd_pose.codes`). For a crop the
mesh is met by one ray per output pixel on the object's visible mask, from the crop's own camera,
so that the target is as sharp as the crop, whatever the zoom; the depth pictures of public sets
are too coarse and noisy for that. Embree casts the rays: about a millisecond a crop.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kd_pose.codes import CodeTree, build_code_tree, code_table_to_text, encode, grid_pixels
from kd_pose.manifest import ObjectSpec
from kd_pose_training.data.canonical import CanonicalPose

NO_CODE = -1
SAMPLE_SEED = 0


def sample_surface(vertices: np.ndarray, faces: np.ndarray, count: int) -> np.ndarray:
    """Points (count, 3) spread evenly over a triangle mesh, the same ones every time.

    Args:
        vertices: (V, 3). faces: (F, 3) int.

    Raises:
        ValueError: no triangles, or their area is nothing.
    """
    faces = np.asarray(faces, dtype=np.int64).reshape(-1, 3)
    corners = np.asarray(vertices, dtype=np.float64)[faces]
    sides = corners[:, 1:] - corners[:, :1]
    area = np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=1)
    total = area.sum()
    if not total > 0:
        raise ValueError(f"the mesh has {len(faces)} triangles and no surface; codes need one")
    rng = np.random.default_rng(SAMPLE_SEED)
    # One sample in each equal share of the area: every triangle gets its due, but for one.
    places = (np.arange(count) + rng.random(count)) / count * total
    chosen = np.searchsorted(np.cumsum(area), places, side="right")
    chosen = np.minimum(chosen, len(faces) - 1)  # the last sum may be rounded
    a, b = rng.random((2, count))
    flipped = a + b > 1
    a, b = np.where(flipped, 1 - a, a), np.where(flipped, 1 - b, b)
    return corners[chosen, 0] + a[:, None] * sides[chosen, 0] + b[:, None] * sides[chosen, 1]


@dataclass
class SurfaceCodes:
    """Mesh and codes of one class.

    vertices: (V, 3) metres, object frame. faces: (F, 3) int. Safe to share with worker processes
    started by fork: each builds its own scene for the rays.
    """

    spec: ObjectSpec
    vertices: np.ndarray
    faces: np.ndarray
    tree: CodeTree
    canonical: CanonicalPose = field(init=False)
    _scene: tuple[int, Any] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self.canonical = CanonicalPose(self.spec)

    @classmethod
    def build(cls, spec: ObjectSpec, vertices: np.ndarray, faces: np.ndarray, bits: int,
              samples: int) -> SurfaceCodes:
        """From a mesh.

        Raises:
            ValueError: names the object; no surface, or too few samples for the bits.
        """
        try:
            tree = build_code_tree(sample_surface(vertices, faces, samples), bits)
        except ValueError as error:
            raise ValueError(f"object {spec.name!r}: {error}") from error
        return cls(spec, np.asarray(vertices, np.float64), np.asarray(faces, np.int64), tree)

    @property
    def table_text(self) -> str:
        """The table as a checkpoint and a manifest hold it."""
        return code_table_to_text(self.tree)

    def render(self, T_cam_obj: np.ndarray, K_crop: np.ndarray, mask: np.ndarray, stride: int,
               roll: float = 0.0) -> np.ndarray:
        """Codes at the output pixels of a crop.

        Args:
            T_cam_obj: (4, 4); brought to its canonical symmetry member here.
            K_crop: (3, 3) matrix of the crop, input pixels.
            mask: (h, w) bool, output pixels where the object is visible.
            stride: input pixels per output pixel. roll: see ``CanonicalPose``.

        Returns:
            (h, w) int32; NO_CODE outside the mask and where no ray meets the mesh.
        """
        codes = np.full(mask.shape, NO_CODE, dtype=np.int32)
        cells = np.flatnonzero(mask)
        if len(cells):
            points, met = self.surface_points(
                self.canonical(T_cam_obj, roll), K_crop,
                grid_pixels(cells, mask.shape[1], stride))
            codes.reshape(-1)[cells[met]] = encode(self.tree, points)
        return codes

    def surface_points(self, T_cam_obj: np.ndarray, K: np.ndarray,
                       pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First points of the mesh on the rays through pixels (n, 2).

        Returns:
            (m, 3) object frame, metres, for those rays that meet it, and which (n,) bool do.
        """
        R, t = T_cam_obj[:3, :3], T_cam_obj[:3, 3]
        rays = np.column_stack([pixels, np.ones(len(pixels))]) @ np.linalg.inv(K).T @ R
        eye = -R.T @ t
        found = self._rays().run(np.tile(eye.astype(np.float32), (len(rays), 1)),
                                 rays.astype(np.float32), output=1)
        met = found["primID"] >= 0
        return eye + found["tfar"][met].astype(np.float64)[:, None] * rays[met], met

    def _rays(self) -> Any:
        if self._scene is None or self._scene[0] != os.getpid():
            self._scene = (os.getpid(), _embree_scene(self.vertices, self.faces))
        return self._scene[1]


def _embree_scene(vertices: np.ndarray, faces: np.ndarray) -> Any:
    try:
        from embreex import rtcore_scene
        from embreex.mesh_construction import TriangleMesh
    except ImportError as error:
        raise ValueError("targets of the dense networks need embreex: pip install embreex "
                         "(x86-64 only)") from error
    scene = rtcore_scene.EmbreeScene()
    TriangleMesh(scene, np.ascontiguousarray(vertices[faces], dtype=np.float32))
    return scene


def build_surface_codes(datasets: Sequence[Any], specs: Sequence[ObjectSpec], bits: int,
                        samples: int, load_surface: Callable[[Any], tuple] | None = None
                        ) -> list[SurfaceCodes]:
    """Codes of the classes in their order, from the first set that has each.

    Args:
        load_surface: BOP model -> vertices (V, 3) metres and faces (F, 3); the BOP reader's own
            by default.

    Raises:
        ValueError: names the object whose mesh gives no codes.
    """
    if load_surface is None:
        from kd_pose_training.data.bop_models import load_mesh_surface as load_surface
    models: dict[str, Any] = {}
    for dataset in datasets:
        for model in dataset.models.values():
            models.setdefault(model.name, model)
    return [SurfaceCodes.build(spec, *load_surface(models[spec.name]), bits, samples)
            for spec in specs]
