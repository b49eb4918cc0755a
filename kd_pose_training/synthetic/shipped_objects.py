"""The five objects of the shipped model, built and painted here so that nobody owns them.

| name    | shape                          | symmetry                                   |
|---------|--------------------------------|--------------------------------------------|
| carton  | box with a printed label       | none                                       |
| can     | tin with printed rings         | any turn about its z axis                  |
| mug     | cup with a handle              | none (the handle may be out of sight)      |
| brick   | toy brick with 4 x 2 studs     | half a turn about its z axis               |
| bracket | steel angle with a gusset      | none                                       |

Origins are at the box centres, z is up. Sizes are those of the kitchen: 9 to 19 cm.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import yaml

from kd_pose.manifest import ObjectSpec
from kd_pose_training.synthetic.meshes import Mesh, diameter, flat_mesh, merge, save_glb

SIDE = 512  # texels of an atlas
_TURN = tuple(np.diag([-1.0, -1.0, 1.0, 1.0]).ravel().tolist())
_AXIS = ((0.0, 0.0, 1.0), (0.0, 0.0, 0.0))


def shipped_objects() -> dict[str, tuple[Mesh, ObjectSpec]]:
    """Name -> mesh (metres) and spec, in the order of the shipped model's classes."""
    symmetries = {"can": {"symmetries_continuous": (_AXIS,)},
                  "brick": {"symmetries_discrete": (_TURN,)}}
    makers: dict[str, Callable[[], Mesh]] = {
        "carton": _carton, "can": _can, "mug": _mug, "brick": _brick, "bracket": _bracket}
    found = {}
    for name, make in makers.items():
        mesh = make()
        low, high = mesh.box
        found[name] = (mesh, ObjectSpec(
            name, diameter(mesh.vertices), tuple(low.tolist()), tuple(high.tolist()),
            **symmetries.get(name, {})))
    return found


def write_shipped_objects(folder: Path) -> Path:
    """Write a .glb per object and objects.yaml, which synth-objects reads; returns its path.

    Raises:
        ValueError: the folder holds something already.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder}: exists and is not empty; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for name, (mesh, spec) in shipped_objects().items():
        save_glb(mesh, folder / f"{name}.glb")
        entry: dict = {"name": name, "mesh": f"{name}.glb"}
        if spec.symmetries_discrete:
            entry["symmetries_discrete"] = [list(item) for item in spec.symmetries_discrete]
        if spec.symmetries_continuous:
            entry["symmetries_continuous"] = [
                {"axis": list(axis), "offset": list(offset)}
                for axis, offset in spec.symmetries_continuous]
        entries.append(entry)
    path = folder / "objects.yaml"
    path.write_text("# Meshes in metres; symmetries in the mesh frame, metres.\n"
                    + yaml.safe_dump({"objects": entries}, sort_keys=False))
    return path


# Parts -------------------------------------------------------------------------------------------

def _canvas(colour: tuple[int, int, int]) -> np.ndarray:
    return np.full((SIDE, SIDE, 3), colour, np.uint8)


def _rect(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    """uv of a quad's corners (0,0), (1,0), (1,1), (0,1); pixels of the atlas, y from the top."""
    u0, u1, v0, v1 = x0 / SIDE, x1 / SIDE, 1 - y1 / SIDE, 1 - y0 / SIDE
    return np.array([[u0, v0], [u1, v0], [u1, v1], [u0, v1]])


def _quads(corners: list[np.ndarray], uvs: list[np.ndarray], texture: np.ndarray) -> Mesh:
    """Quads (4, 3), counter-clockwise from outside, each with its uv (4, 2)."""
    count = len(corners)
    base = 4 * np.arange(count)[:, None, None]
    faces = (base + np.array([[0, 1, 2], [0, 2, 3]])).reshape(-1, 3)
    return flat_mesh(np.concatenate(corners), faces, uv=np.concatenate(uvs), texture=texture)


def _box(size: tuple[float, float, float], centre: tuple[float, float, float],
         uvs: dict[str, np.ndarray], texture: np.ndarray) -> Mesh:
    """Box with the sides +x -x +y -y +z -z; ``uvs`` may leave sides to its key ``rest``."""
    x, y, z = np.array(size) / 2
    sides = {
        "+x": [(x, -y, -z), (x, y, -z), (x, y, z), (x, -y, z)],
        "-x": [(-x, y, -z), (-x, -y, -z), (-x, -y, z), (-x, y, z)],
        "+y": [(x, y, -z), (-x, y, -z), (-x, y, z), (x, y, z)],
        "-y": [(-x, -y, -z), (x, -y, -z), (x, -y, z), (-x, -y, z)],
        "+z": [(-x, -y, z), (x, -y, z), (x, y, z), (-x, y, z)],
        "-z": [(-x, y, -z), (x, y, -z), (x, -y, -z), (-x, -y, -z)]}
    return _quads([np.array(side) + centre for side in sides.values()],
                  [uvs.get(name, uvs.get("rest", _rect(0, 0, 8, 8))) for name in sides], texture)


def _lathe(profile: list[tuple[float, float]], texture: np.ndarray, rows: list[float],
           u: tuple[float, float] = (0.0, 1.0), segments: int = 64) -> Mesh:
    """Turned part: profile (r, z) from the bottom up the outside; rows: its y in the atlas."""
    angle = np.linspace(0, 2 * np.pi, segments + 1)
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    vertices = np.concatenate([np.column_stack([r * ring, np.full(len(ring), z)])
                               for r, z in profile])
    across = u[0] + (u[1] - u[0]) * angle / (2 * np.pi)
    uv = np.concatenate([np.stack([across, np.full(len(ring), 1 - row / SIDE)], 1)
                         for row in rows])
    n, faces = segments + 1, []
    for level in range(len(profile) - 1):
        a = level * n + np.arange(segments)
        faces += [np.stack([a, a + 1, a + 1 + n], 1), np.stack([a, a + 1 + n, a + n], 1)]
    return flat_mesh(vertices, np.concatenate(faces), uv=uv, texture=texture)


def _tube(path: np.ndarray, radius: float, uv: tuple[float, float], texture: np.ndarray,
          segments: int = 20) -> Mesh:
    """Round bar along points (n, 3) in the xz plane, plainly coloured by one texel."""
    tangent = np.gradient(path, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    side = np.tile([0.0, 1.0, 0.0], (len(path), 1))
    up = np.cross(tangent, side)
    angle = np.linspace(0, 2 * np.pi, segments, endpoint=False)
    ring = (np.cos(angle)[None, :, None] * up[:, None] * 0.75
            + np.sin(angle)[None, :, None] * side[:, None])
    vertices = (path[:, None] + radius * ring).reshape(-1, 3)
    faces = []
    for level in range(len(path) - 1):
        a = level * segments + np.arange(segments)
        b = level * segments + (np.arange(segments) + 1) % segments
        faces += [np.stack([a, b + segments, b], 1), np.stack([a, a + segments, b + segments], 1)]
    return flat_mesh(vertices, np.concatenate(faces), uv=np.tile(uv, (len(vertices), 1)),
                     texture=texture)


def _text(canvas: np.ndarray, words: str, at: tuple[int, int], size: float,
          colour: tuple[int, int, int], thickness: int = 2) -> None:
    cv2.putText(canvas, words, at, cv2.FONT_HERSHEY_DUPLEX, size, colour, thickness, cv2.LINE_AA)


# Objects -----------------------------------------------------------------------------------------

def _carton() -> Mesh:
    """Tea carton, 11 x 7 x 15 cm: every side printed in another way."""
    t = _canvas((235, 228, 210))
    cv2.rectangle(t, (0, 0), (255, 255), (200, 60, 45), -1)          # front
    cv2.circle(t, (128, 100), 70, (250, 225, 120), -1, cv2.LINE_AA)
    cv2.ellipse(t, (128, 100), (52, 24), -30, 0, 360, (60, 120, 60), -1, cv2.LINE_AA)
    cv2.ellipse(t, (120, 112), (40, 14), 35, 0, 360, (90, 160, 80), -1, cv2.LINE_AA)
    _text(t, "ASSAM", (44, 222), 1.6, (255, 250, 235), 4)
    cv2.rectangle(t, (256, 0), (511, 255), (240, 205, 90), -1)       # back
    for row in range(7):
        cv2.line(t, (280, 90 + 20 * row), (480 - 23 * (row % 3), 90 + 20 * row), (70, 60, 50), 5)
    _text(t, "TEA", (320, 65), 1.8, (160, 40, 35), 4)
    cv2.rectangle(t, (0, 256), (127, 511), (40, 90, 125), -1)        # left
    for row in range(4):
        cv2.line(t, (0, 300 + 60 * row), (127, 270 + 60 * row), (220, 230, 235), 12)
    cv2.rectangle(t, (128, 256), (255, 511), (230, 225, 215), -1)    # right: a bar code
    bars = np.random.default_rng(5).random(32) < 0.5
    for column in np.flatnonzero(bars):
        cv2.rectangle(t, (140 + 3 * column, 400), (142 + 3 * column, 490), (25, 25, 25), -1)
    cv2.circle(t, (192, 320), 40, (80, 150, 80), -1, cv2.LINE_AA)
    cv2.rectangle(t, (256, 256), (511, 383), (175, 45, 35), -1)      # top
    _text(t, "OPEN", (310, 335), 1.5, (250, 240, 220), 3)
    cv2.arrowedLine(t, (280, 360), (480, 360), (250, 240, 220), 6)
    cv2.rectangle(t, (256, 384), (511, 511), (150, 135, 115), -1)    # bottom
    return _box((0.11, 0.07, 0.15), (0, 0, 0), {
        "-y": _rect(0, 0, 256, 256), "+y": _rect(256, 0, 512, 256), "-x": _rect(0, 256, 128, 512),
        "+x": _rect(128, 256, 256, 512), "+z": _rect(256, 256, 512, 384),
        "-z": _rect(256, 384, 512, 512)}, t)


def _can() -> Mesh:
    """Tin, 7.4 cm wide and 11 cm high. Everything on it is a ring: it has no front."""
    t = _canvas((190, 195, 200))
    for y0, y1, colour in ((60, 130, (30, 90, 160)), (130, 150, (245, 240, 220)),
                           (150, 230, (225, 120, 40)), (230, 245, (245, 240, 220)),
                           (245, 330, (30, 90, 160)), (345, 365, (225, 120, 40)),
                           (420, 440, (120, 125, 130)), (470, 512, (150, 155, 160))):
        t[y0:y1] = colour
    r, h = 0.037, 0.055
    return _lathe([(1e-4, -h + 0.003), (r - 0.004, -h + 0.003), (r - 0.003, -h), (r, -h + 0.003),
                   (r, h - 0.003), (r - 0.003, h), (r - 0.004, h - 0.005), (1e-4, h - 0.005)],
                  t, [505, 480, 400, 390, 40, 20, 410, 460])


def _mug() -> Mesh:
    """Cup, 8.4 cm wide and 9.6 cm high, with a handle towards +x and a picture beside it."""
    t = _canvas((60, 140, 140))
    t[0:90] = (245, 240, 228)                                        # inside and rim
    t[430:] = (200, 195, 185)                                        # foot
    for column in range(16):                                         # a zigzag all round
        a, b = 32 * column, 32 * column + 16
        cv2.line(t, (a, 150), (b, 120), (245, 240, 228), 7, cv2.LINE_AA)
        cv2.line(t, (b, 120), (a + 32, 150), (245, 240, 228), 7, cv2.LINE_AA)
    for centre, colour in ((128, (240, 190, 70)), (256, (225, 95, 80)), (384, (35, 60, 95))):
        cv2.circle(t, (centre, 280), 46, colour, -1, cv2.LINE_AA)
        cv2.circle(t, (centre, 280), 20, (245, 240, 228), -1, cv2.LINE_AA)
    cv2.rectangle(t, (480, 300), (500, 310), (245, 240, 228), -1)
    r, h, wall = 0.042, 0.048, 0.004
    body = _lathe([(1e-4, -h), (r - 0.006, -h), (r - 0.002, -h + 0.004), (r, -h + 0.012), (r, h),
                   (r - wall, h), (r - wall, -h + 0.008), (1e-4, -h + 0.006)],
                  t, [508, 480, 440, 425, 95, 80, 40, 10])
    angle = np.linspace(np.radians(72), np.radians(-72), 25)
    path = np.stack([r - 0.008 + 0.034 * np.cos(angle), 0 * angle, 0.031 * np.sin(angle)], 1)
    mesh = merge(body, _tube(path, 0.0065, (490 / SIDE, 1 - 305 / SIDE), t))
    low, high = mesh.box
    shift = ((low + high) / 2).astype(np.float32)
    return Mesh(mesh.vertices - shift, mesh.faces, mesh.normals, mesh.uv, mesh.colours, t)


def _brick() -> Mesh:
    """Toy brick, 12.8 x 6.4 cm with 4 x 2 studs; half a turn about z changes nothing."""
    t = _canvas((205, 40, 40))
    t[:, 256:] = (235, 175, 30)                                      # studs
    for side in (0, 128):                                            # the long sides' stripe
        cv2.rectangle(t, (side, 20), (side + 127, 44), (245, 240, 235), -1)
    cv2.rectangle(t, (0, 200), (255, 330), (170, 30, 32), -1)        # top, darker
    long_side, end = _rect(0, 0, 128, 100), _rect(0, 100, 128, 180)
    size = (0.128, 0.064, 0.044)
    parts = [_box(size, (0, 0, 0), {"+y": long_side, "-y": long_side, "+x": end, "-x": end,
                                    "+z": _rect(0, 200, 256, 330),
                                    "-z": _rect(10, 400, 100, 500)}, t)]
    z = size[2] / 2
    for x in (-0.048, -0.016, 0.016, 0.048):
        for y in (-0.016, 0.016):
            stud = _lathe([(0.0105, z), (0.0105, z + 0.010), (1e-4, z + 0.010)], t,
                          [100, 140, 300], (0.75, 0.76), 24)
            parts.append(Mesh(stud.vertices + np.float32([x, y, 0]), stud.faces, stud.normals,
                              stud.uv, stud.colours, t))
    mesh = merge(*parts)
    return Mesh(mesh.vertices - np.float32([0, 0, 0.005]), mesh.faces, mesh.normals, mesh.uv,
                mesh.colours, t)


def _bracket() -> Mesh:
    """Angle of painted steel, 14 x 6 x 10 cm, with a gusset at one end and warning stripes."""
    t = _canvas((70, 85, 110))
    rng = np.random.default_rng(11)
    for x, y in rng.integers(0, SIDE, (60, 2)):                      # worn paint
        cv2.line(t, (int(x), int(y)), (int(x + rng.integers(-12, 12)), int(y + 3)),
                 (120, 130, 145), 1, cv2.LINE_AA)
    cv2.rectangle(t, (0, 0), (255, 255), (240, 200, 40), -1)         # warning stripes
    for start in range(-256, 256, 64):
        corners = np.array([[start, 255], [start + 32, 255], [start + 288, 0], [start + 256, 0]])
        cv2.fillPoly(t, [corners], (30, 30, 30), cv2.LINE_AA)
    t[0:256, 256:] = (70, 85, 110)
    for x, y in ((320, 70), (448, 70), (384, 190)):                  # bolt holes, painted
        cv2.circle(t, (x, y), 26, (175, 180, 185), -1, cv2.LINE_AA)
        cv2.circle(t, (x, y), 15, (25, 28, 32), -1, cv2.LINE_AA)
    cv2.rectangle(t, (256, 256), (511, 383), (205, 90, 45), -1)      # gusset
    plate, stripes = _rect(256, 0, 512, 256), _rect(0, 0, 256, 256)
    gusset = _rect(260, 260, 500, 380)
    rest = _rect(10, 400, 240, 500)
    base = _box((0.14, 0.06, 0.008), (0, 0, -0.046), {"+z": plate, "rest": rest}, t)
    wall = _box((0.14, 0.008, 0.092), (0, 0.026, 0.004), {"-y": stripes, "rest": rest}, t)
    x0, x1 = 0.054, 0.066
    a, b, c = (-0.026, -0.042), (0.022, -0.042), (0.022, 0.046)      # (y, z) of the gusset
    sides = []
    for x, order in ((x0, (a, c, b, b)), (x1, (a, b, c, c))):
        sides.append(np.array([(x, *point) for point in order]))
    sides.append(np.array([(x0, *a), (x1, *a), (x1, *c), (x0, *c)]))
    return merge(base, wall, _quads(sides, [gusset] * 3, t))
