"""Meshes from files: geometry, colours, units; every bad file with a message that says why."""

import numpy as np
import pytest
import trimesh
from PIL import Image

from helpers.synth_scenes import box_mesh
from kd_pose_training.synthetic.meshes import (
    MeshError,
    check_mesh,
    diameter,
    load_mesh,
    save_glb,
    save_ply_mm,
    vertex_colours,
)
from kd_pose_training.synthetic.objects_file import load_objects

BOX = (0.08, 0.06, 0.04)


def trimesh_box(scale=1.0):
    return trimesh.creation.box(extents=np.array(BOX) * scale)


@pytest.mark.parametrize("suffix", ["ply", "obj", "glb", "stl"])
def test_formats_give_the_same_box(tmp_path, suffix):
    path = tmp_path / f"box.{suffix}"
    trimesh_box().export(path)
    mesh = load_mesh(path)
    assert len(mesh.faces) == 12
    assert mesh.box[1] == pytest.approx(np.array(BOX) / 2, abs=1e-7)
    # Faces of a box are flat: every corner's normal is its face's.
    corners = mesh.vertices[mesh.faces]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    cross /= np.linalg.norm(cross, axis=1, keepdims=True)
    assert mesh.normals[mesh.faces] == pytest.approx(np.repeat(cross[:, None], 3, 1), abs=1e-5)


def test_scale_turns_millimetres_into_metres(tmp_path):
    trimesh_box(1000).export(tmp_path / "box.ply")
    assert load_mesh(tmp_path / "box.ply", 0.001).box[1] == pytest.approx(
        np.array(BOX) / 2, abs=1e-7)


def test_smooth_shapes_get_smooth_normals(tmp_path):
    trimesh.creation.icosphere(subdivisions=3, radius=0.05).export(tmp_path / "ball.ply")
    mesh = load_mesh(tmp_path / "ball.ply")
    outward = mesh.vertices / np.linalg.norm(mesh.vertices, axis=1, keepdims=True)
    assert (mesh.normals * outward).sum(axis=1).min() > 0.999


def test_vertex_colours_are_read(tmp_path):
    mesh = trimesh_box()
    mesh.visual.vertex_colors = np.tile([200, 100, 50, 255], (len(mesh.vertices), 1))
    mesh.export(tmp_path / "box.ply")
    assert (vertex_colours(load_mesh(tmp_path / "box.ply")) == (200, 100, 50)).all()


@pytest.mark.parametrize("suffix", ["obj", "glb"])
def test_textures_are_read(tmp_path, suffix):
    mesh = trimesh_box()
    picture = np.zeros((8, 8, 3), np.uint8)
    picture[:4], picture[4:] = (250, 0, 0), (0, 0, 250)  # red above, blue below
    uv = np.column_stack([np.full(8, 0.5), np.where(mesh.vertices[:, 2] > 0, 0.9, 0.1)])
    material = trimesh.visual.material.SimpleMaterial(Image.fromarray(picture),
                                                      diffuse=[255, 255, 255, 255])
    mesh.visual = trimesh.visual.TextureVisuals(uv=uv, material=material)
    mesh.export(tmp_path / f"box.{suffix}")
    found = load_mesh(tmp_path / f"box.{suffix}")
    colours, top = vertex_colours(found).astype(int), found.vertices[:, 2] > 0
    assert (colours[top, 0] > 150).all() and (colours[top, 2] < 60).all()
    assert (colours[~top, 2] > 150).all() and (colours[~top, 0] < 60).all()


def test_glb_and_ply_round_trip(tmp_path):
    mesh = box_mesh()
    save_glb(mesh, tmp_path / "a.glb")
    save_ply_mm(mesh, tmp_path / "a.ply")
    for path, scale in (("a.glb", 1.0), ("a.ply", 0.001)):
        found = load_mesh(tmp_path / path, scale)
        assert found.vertices[found.faces] == pytest.approx(mesh.vertices[mesh.faces], abs=1e-6)


def test_diameter_is_the_largest_distance():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(300, 3))
    brute = np.linalg.norm(points[:, None] - points, axis=-1).max()
    assert diameter(points) == pytest.approx(brute)
    assert diameter(np.array([[0, 0, 0], [0.3, 0.4, 0]])) == pytest.approx(0.5)


@pytest.mark.parametrize("content, what", [
    (b"", "empty|cannot be read"),
    (b"not a mesh at all", "empty|cannot be read"),
    (b"ply\nformat ascii 1.0\nelement vertex 0\nproperty float x\nproperty float y\n"
     b"property float z\nelement face 0\nproperty list uchar int vertex_indices\nend_header\n",
     "empty|cannot be read"),
])
def test_files_without_a_mesh_are_refused(tmp_path, content, what):
    path = tmp_path / "thing.ply"
    path.write_bytes(content)
    with pytest.raises(MeshError, match=what) as error:
        load_mesh(path)
    assert "thing.ply" in str(error.value)


def test_bad_paths_and_kinds_are_refused(tmp_path):
    with pytest.raises(MeshError, match="no such mesh"):
        load_mesh(tmp_path / "none.obj")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(MeshError, match=r"\.ply.*\.obj.*\.glb"):
        load_mesh(tmp_path / "a.txt")
    trimesh_box().export(tmp_path / "box.ply")
    for scale in (0.0, -1.0, float("nan")):
        with pytest.raises(MeshError, match="scale"):
            load_mesh(tmp_path / "box.ply", scale)


def test_a_mesh_in_millimetres_is_noticed(tmp_path):
    trimesh_box(1000).export(tmp_path / "box.obj")
    with pytest.raises(MeshError, match=r"box\.obj.*diameter is 107\.7 m.*--scale 0\.001"):
        load_mesh(tmp_path / "box.obj")
    with pytest.raises(MeshError, match=r"box\.obj.*diameter is 0\.0001077 m.*--scale"):
        load_mesh(tmp_path / "box.obj", 1e-6)


def obj_file(path, broken):
    """A box as text, with one of its lines replaced."""
    lines = trimesh_box().export(file_type="obj").splitlines()
    for row, line in enumerate(lines):
        if line.startswith(broken[:2]):
            lines[row] = broken
            break
    path.write_text("\n".join(lines))
    return path


def test_a_file_with_one_bad_vertex_is_refused_and_not_thinned_out(tmp_path):
    with pytest.raises(MeshError, match="box.obj.*not finite"):
        load_mesh(obj_file(tmp_path / "box.obj", "v nan 0 0"))


def test_a_triangle_of_a_vertex_that_is_not_there_is_named(tmp_path):
    content = trimesh_box().export(file_type="off").splitlines()
    content[-1] = "3 0 1 99"
    (tmp_path / "box.off").write_text("\n".join(content))
    with pytest.raises(MeshError, match="box.off.*(vertex 99|cannot be read)"):
        load_mesh(tmp_path / "box.off")


def test_textures_beside_a_ply_are_read_as_in_ycbv(tmp_path):
    picture = np.zeros((8, 8, 3), np.uint8)
    picture[:4], picture[4:] = (250, 0, 0), (0, 0, 250)
    Image.fromarray(picture).save(tmp_path / "obj.png")
    points = [(0, 0, 0, 0.5, 0.1), (0.1, 0, 0, 0.5, 0.1), (0, 0, 0.1, 0.5, 0.9)]
    (tmp_path / "obj.ply").write_text(
        "ply\nformat ascii 1.0\ncomment TextureFile obj.png\nelement vertex 3\n"
        + "".join(f"property float {name}\n" for name in ("x", "y", "z", "texture_u", "texture_v"))
        + "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
        + "".join(" ".join(map(str, point)) + "\n" for point in points) + "3 0 1 2\n")
    found = load_mesh(tmp_path / "obj.ply")
    colours, top = vertex_colours(found).astype(int), found.vertices[:, 2] > 0.05
    assert (colours[top, 0] > 150).all() and (colours[~top, 2] > 150).all()


def test_vertices_that_are_not_finite_are_refused():
    mesh = box_mesh()
    mesh.vertices[3, 1] = np.nan
    with pytest.raises(MeshError, match="a.ply.*not finite"):
        check_mesh(mesh, "a.ply")


def yaml_of(tmp_path, text):
    trimesh_box().export(tmp_path / "box.ply")
    (tmp_path / "objects.yaml").write_text(text)
    return [tmp_path / "objects.yaml"]


def test_objects_file_names_scales_and_symmetries(tmp_path):
    found = load_objects(yaml_of(tmp_path, """
objects:
- {name: part, mesh: box.ply, symmetries_discrete: [[-1,0,0,0, 0,-1,0,0, 0,0,1,0, 0,0,0,1]]}
- {name: small, mesh: box.ply, scale: 0.5}
"""))
    assert [(item.obj_id, item.spec.name) for item in found] == [(1, "part"), (2, "small")]
    assert found[1].spec.diameter == pytest.approx(found[0].spec.diameter / 2)
    assert len(found[0].spec.symmetries_discrete) == 1


@pytest.mark.parametrize("text, what", [
    ("objects: []", "objects"),
    ("objects: [{name: a, mesh: none.ply}]", "none.ply"),
    ("objects: [{name: a, mesh: box.ply}, {name: a, mesh: box.ply}]", "once"),
    ("objects: [{name: a, mesh: box.ply, colour: red}]", "colour"),
    ("objects: [{name: a, mesh: box.ply, scale: -1}]", "scale"),
    ("objects: [{name: a, mesh: box.ply, symmetries_discrete: [[1, 0]]}]", "16 numbers"),
    # A quarter turn does not take 8 x 6 cm to itself, and neither does one about another origin.
    ("objects: [{name: a, mesh: box.ply, symmetries_discrete: "
     "[[0,-1,0,0, 1,0,0,0, 0,0,1,0, 0,0,0,1]]}]", "symmetry moves its surface"),
    ("objects: [{name: a, mesh: box.ply, symmetries_discrete: "
     "[[-1,0,0,50, 0,-1,0,0, 0,0,1,0, 0,0,0,1]]}]", "symmetr"),
    ("objects: [{name: a, mesh: box.ply, symmetries_continuous: [{axis: [0, 0, 1]}]}]",
     "symmetry moves its surface"),
])
def test_bad_objects_files_are_refused(tmp_path, text, what):
    with pytest.raises(ValueError, match=what):
        load_objects(yaml_of(tmp_path, text))


def test_folders_and_names(tmp_path):
    with pytest.raises(MeshError, match="neither"):
        load_objects([tmp_path])
    trimesh_box(1000).export(tmp_path / "one.ply")
    trimesh_box(1000).export(tmp_path / "two.obj")
    assert [item.spec.name for item in load_objects([tmp_path], 0.001)] == ["one", "two"]
    with pytest.raises(ValueError, match="two are called 'one'"):
        load_objects([tmp_path / "one.ply", tmp_path / "one.ply"], 0.001)
