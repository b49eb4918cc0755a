"""The project's own objects: five shapes, true symmetries, sides that can be told apart."""

import numpy as np
import pytest
import yaml
from scipy.spatial import cKDTree

from kd_pose.geometry import transform_points
from kd_pose.symmetry import symmetry_transforms
from kd_pose_training.synthetic.check import surface_points
from kd_pose_training.synthetic.meshes import MeshError
from kd_pose_training.synthetic.objects_file import load_objects
from kd_pose_training.synthetic.shipped_objects import shipped_objects, write_shipped_objects

OBJECTS = shipped_objects()


def coloured_points(mesh, count=4000):
    """Surface points with their colours (n, 3), (n, 3) in 0..255."""
    corners = mesh.faces
    rng = np.random.default_rng(0)
    area = np.linalg.norm(np.cross(
        mesh.vertices[corners[:, 1]] - mesh.vertices[corners[:, 0]],
        mesh.vertices[corners[:, 2]] - mesh.vertices[corners[:, 0]]), axis=1)
    rows = rng.choice(len(corners), count, p=area / area.sum())
    a, b = np.sqrt(rng.random(count)), rng.random(count)
    weights = np.stack([1 - a, a * (1 - b), a * b], 1)[:, :, None]
    points, uv = ((values[corners[rows]] * weights).sum(1) for values in (mesh.vertices, mesh.uv))
    h, w = mesh.texture.shape[:2]
    row = np.clip(((1 - uv[:, 1]) * h).astype(int), 0, h - 1)
    column = np.clip((uv[:, 0] * w).astype(int), 0, w - 1)
    return points, mesh.texture[row, column].astype(float)


def test_five_shapes_with_a_discrete_and_a_continuous_symmetry():
    assert list(OBJECTS) == ["carton", "can", "mug", "brick", "bracket"]
    assert sum(bool(spec.symmetries_continuous) for _, spec in OBJECTS.values()) == 1
    assert sum(bool(spec.symmetries_discrete) for _, spec in OBJECTS.values()) == 1
    for _, spec in OBJECTS.values():
        assert 0.08 < spec.diameter < 0.3


@pytest.mark.parametrize("name", list(OBJECTS))
def test_nobody_looks_into_a_mesh_from_outside(name):
    """Whatever a ray meets first shows it its front: no holes and no triangle inside out."""
    pytest.importorskip("embreex")
    import trimesh
    mesh, spec = OBJECTS[name]
    rng = np.random.default_rng(1)
    starts = rng.normal(size=(20000, 3))
    starts *= spec.diameter / np.linalg.norm(starts, axis=1, keepdims=True)
    rays = rng.uniform(spec.box_min, spec.box_max, starts.shape) - starts
    shape = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    met = shape.ray.intersects_first(starts, rays)
    cosine = (shape.face_normals[met] * rays).sum(axis=1)[met >= 0]
    assert len(cosine) > 5000 and np.mean(cosine < 0) > 0.999


@pytest.mark.parametrize("name", ["can", "brick"])
def test_declared_symmetries_keep_shape_and_colours(name):
    mesh, spec = OBJECTS[name]
    points, colours = coloured_points(mesh, 20000)
    tree = cKDTree(points)
    for T in symmetry_transforms(spec, 45.0)[1:]:
        away, row = tree.query(transform_points(T, points[:2000]))
        assert np.quantile(away, 0.95) < 0.03 * spec.diameter
        assert np.median(abs(colours[row] - colours[:2000]).max(axis=1)) < 20


@pytest.mark.parametrize("name", ["carton", "mug", "bracket", "brick"])
def test_half_turns_that_are_not_declared_show(name):
    mesh, spec = OBJECTS[name]
    points, colours = coloured_points(mesh, 20000)
    middle = (np.array(spec.box_min) + spec.box_max) / 2
    tree = cKDTree(points)
    declared = [T[:3, :3] for T in symmetry_transforms(spec)]
    for signs in ((-1, -1, 1), (-1, 1, -1), (1, -1, -1)):
        R = np.diag(np.array(signs, float))
        if any(np.allclose(R, other) for other in declared):
            continue
        away, row = tree.query((points[:2000] - middle) @ R.T + middle)
        wrong = (away > 0.03 * spec.diameter) | (
            abs(colours[row] - colours[:2000]).max(axis=1) > 60)
        assert wrong.mean() > 0.15, signs


def test_files_are_read_back_as_they_are(tmp_path):
    path = write_shipped_objects(tmp_path / "meshes")
    assert len(yaml.safe_load(path.read_text())["objects"]) == 5
    for item in load_objects([tmp_path / "meshes"]):
        mesh, spec = OBJECTS[item.spec.name]
        assert item.spec.diameter == pytest.approx(spec.diameter, rel=1e-4)
        assert item.spec.symmetries_discrete == spec.symmetries_discrete
        tree = cKDTree(surface_points(mesh.vertices, mesh.faces, 8000))
        found = surface_points(item.mesh.vertices, item.mesh.faces, 500)
        assert tree.query(found)[0].max() < 0.05 * spec.diameter
        assert abs(item.mesh.texture.astype(int).mean() - mesh.texture.mean()) < 2


def test_a_folder_in_use_is_left_alone(tmp_path):
    (tmp_path / "meshes").mkdir()
    (tmp_path / "meshes" / "mine.txt").write_text("mine")
    with pytest.raises((ValueError, MeshError), match="meshes"):
        write_shipped_objects(tmp_path / "meshes")
    assert [p.name for p in (tmp_path / "meshes").iterdir()] == ["mine.txt"]
