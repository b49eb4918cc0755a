"""Made-up pictures for walls, tables and clutter, and the shapes of clutter.

Networks learn what an object looks like by seeing it before things that vary without end; what
matters is variety of scale, contrast and edges, so pictures are mixed from a few simple kinds.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from kd_pose_training.synthetic.meshes import Mesh, flat_mesh
from kd_pose_training.trimesh_import import import_trimesh

PICTURES = (".jpg", ".jpeg", ".png", ".bmp")


def colour(rng: np.random.Generator, vivid: float = 1.0) -> np.ndarray:
    """RGB (3,) float 0..255: most are greyish, as most of the world is."""
    hsv = np.uint8([[[rng.integers(180), int(255 * min(1, vivid * rng.beta(1.1, 2.2))),
                      rng.integers(25, 250)]]])
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0].astype(np.float64)


def noise(height: int, width: int, cell: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise (H, W) in about -1..1 with features of ``cell`` pixels and finer ones."""
    total = np.zeros((height, width), np.float32)
    for octave in range(3):
        size = max(2.0, cell / 2**octave)
        grid = rng.uniform(-1, 1, (int(height / size) + 3, int(width / size) + 3))
        total += cv2.resize(grid.astype(np.float32), (width, height),
                            interpolation=cv2.INTER_CUBIC) / 2**octave
    return total / 1.75


def picture(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """RGB uint8 (H, W, 3) of a random kind."""
    makers = (_cloudy, _wood, _tiles, _shapes, _shapes, _speckled, _stripes)
    image = makers[rng.integers(len(makers))](height, width, rng)
    return np.clip(image, 0, 255).astype(np.uint8)


def _cloudy(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    base, amount = colour(rng), rng.uniform(4, 35)
    return base + (noise(height, width, rng.uniform(20, 300), rng) * amount)[..., None]


def _speckled(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    image = _cloudy(height, width, rng)
    grain = rng.normal(size=(height, width)).astype(np.float32)
    grain = cv2.GaussianBlur(grain, (0, 0), rng.uniform(0.6, 2.5))
    spots = (grain > np.quantile(grain[::7, ::7], rng.uniform(0.8, 0.97))).astype(np.float32)
    return image + spots[..., None] * (colour(rng) - image) * rng.uniform(0.2, 0.8)


def _wood(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    dark = np.array([90, 60, 35]) * rng.uniform(0.6, 1.5)
    light = dark * rng.uniform(1.25, 2.0)
    stretch = cv2.resize(noise(max(8, height // 12), width, rng.uniform(15, 60), rng),
                         (width, height), interpolation=cv2.INTER_CUBIC)
    rings = 0.5 + 0.5 * np.sin(stretch * rng.uniform(6, 20)
                               + np.linspace(0, rng.uniform(5, 40), width)[None])
    image = dark + (light - dark) * rings[..., None]
    planks = int(rng.integers(0, 7))
    for edge in np.linspace(0, width, planks + 1)[1:-1].astype(int):
        image[:, max(0, edge - 1):edge + 1] *= 0.5
    return image if rng.random() < 0.5 else image.transpose(1, 0, 2)[:height, :width] \
        if height == width else image


def _tiles(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    size, joint = int(rng.integers(20, 160)), int(rng.integers(1, 5))
    first, second = colour(rng), colour(rng)
    rows, columns = np.arange(height) // size, np.arange(width) // size
    board = (rows[:, None] + columns[None]) % 2 if rng.random() < 0.5 else \
        rng.random((rows.max() + 1, columns.max() + 1))[rows][:, columns]
    image = first + (second - first) * (board * rng.uniform(0.1, 1))[..., None]
    line = colour(rng)
    image[np.arange(height) % size < joint] = line
    image[:, np.arange(width) % size < joint] = line
    return image + (noise(height, width, 60, rng) * 8)[..., None]


def _stripes(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    angle, period = rng.uniform(0, np.pi), rng.uniform(8, 120)
    y, x = np.mgrid[0:height, 0:width]
    wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / period)
    wave = wave if rng.random() < 0.4 else np.clip(wave * 8, -1, 1)
    first, second = colour(rng), colour(rng)
    return first + (second - first) * (0.5 + 0.5 * wave * rng.uniform(0.2, 1))[..., None]


def _shapes(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A heap of boxes, discs and words: what a cluttered shelf looks like out of focus."""
    image = np.ascontiguousarray(np.clip(_cloudy(height, width, rng), 0, 255).astype(np.uint8))
    for _ in range(int(rng.integers(8, 60))):
        paint = tuple(int(v) for v in colour(rng, 1.3))
        x, y = int(rng.integers(-20, width)), int(rng.integers(-20, height))
        w, h = (int(v) for v in rng.lognormal(3.4, 0.8, 2) + 4)
        kind = rng.random()
        if kind < 0.5:
            box = cv2.boxPoints(((x, y), (w, h), float(rng.choice([0, 0, rng.uniform(0, 90)]))))
            cv2.fillPoly(image, [np.int32(box)], paint, cv2.LINE_AA)
        elif kind < 0.75:
            cv2.ellipse(image, (x, y), (w // 2 + 1, h // 2 + 1), rng.uniform(0, 180), 0, 360,
                        paint, -1, cv2.LINE_AA)
        elif kind < 0.9:
            cv2.line(image, (x, y), (x + w * 2, y + int(rng.integers(-h, h))), paint,
                     int(rng.integers(1, 9)), cv2.LINE_AA)
        else:
            letters = "".join(chr(v) for v in rng.integers(65, 91, 5))
            cv2.putText(image, letters, (x, y), cv2.FONT_HERSHEY_DUPLEX, rng.uniform(0.5, 2.0),
                        paint, int(rng.integers(1, 5)), cv2.LINE_AA)
    sigma = rng.uniform(0, 2.5)
    return (cv2.GaussianBlur(image, (0, 0), sigma) if sigma > 0.3 else image).astype(np.float64)


@lru_cache(maxsize=1)
def background_files(folder: Path) -> tuple[Path, ...]:
    """Pictures of a folder and those below it.

    Raises:
        ValueError: it has none.
    """
    found = tuple(sorted(p for p in folder.rglob("*") if p.suffix.lower() in PICTURES))
    if not found:
        raise ValueError(f"look.backgrounds: {folder} holds no pictures ({', '.join(PICTURES)})")
    return found


def backdrop(height: int, width: int, rng: np.random.Generator,
             folder: Path | None = None) -> np.ndarray:
    """RGB (H, W, 3): a piece of one of the folder's pictures, or a made-up one.

    Raises:
        ValueError: the folder has no pictures, or one cannot be read.
    """
    if folder is None:
        return picture(height, width, rng)
    path = background_files(folder)[rng.integers(len(background_files(folder)))]
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError(f"{path}: cannot be read as a picture")
    scale = max(height / image.shape[0], width / image.shape[1]) * rng.uniform(1.0, 1.6)
    image = cv2.resize(image, (max(width, round(scale * image.shape[1])),
                               max(height, round(scale * image.shape[0]))))
    y = rng.integers(image.shape[0] - height + 1)
    x = rng.integers(image.shape[1] - width + 1)
    return np.ascontiguousarray(image[y:y + height, x:x + width, ::-1])


def clutter_mesh(rng: np.random.Generator, size: float) -> Mesh:
    """A box, cylinder, ball, ring or cone, ``size`` metres at its longest, uv over its surface."""
    trimesh = import_trimesh()
    kind = rng.integers(5)
    a, b = rng.uniform(0.25, 1.0, 2) * size
    if kind == 0:
        shape = trimesh.creation.box((size, a, b))
    elif kind == 1:
        shape = trimesh.creation.cylinder(a / 2, size, sections=32)
    elif kind == 2:
        shape = trimesh.creation.icosphere(3, size / 2)
        shape.apply_scale([1, a / size, b / size])
    elif kind == 3:
        shape = trimesh.creation.torus(size * 0.36, size * 0.14, 32, 16)
    else:
        shape = trimesh.creation.cone(a / 2, size, sections=32)
        shape.apply_translation([0, 0, -size / 2])
    # Looked at along a slanted axis, so that no side of a box has a stretched texture.
    uv = shape.vertices @ np.array([[0.8, 0.1], [0.35, 0.9], [0.5, -0.4]]) / size + 0.5
    return flat_mesh(shape.vertices, shape.faces, uv=uv)


def table_mesh(size: float = 3.0) -> Mesh:
    """Square of the world's z = 0 with uv from 0 to 1."""
    s = size / 2
    return flat_mesh(np.array([[-s, -s, 0], [s, -s, 0], [s, s, 0], [-s, s, 0]]),
                     np.array([[0, 1, 2], [0, 2, 3]]),
                     uv=np.array([[0, 0], [1, 0], [1, 1], [0, 1]]))
