"""Dense surface codes: every point of an object's surface has a binary number, coarse bits first.

The shape of ZebraPose (Su et al., CVPR 2022, "ZebraPose: Coarse to Fine Surface Encoding for 6DoF
Object Pose Estimation"): the surface is halved again and again, bit k says which half of a region
of level k a point lies in, and 16 bits name one of 65 536 patches. A network answers every pixel
with a mask score and the probability of each bit; a pixel's bits name a patch, its middle is a
3D point, and all pixels together go to PnP. Training encodes its targets here and the runtime
decodes here, so the two cannot drift apart.

Ours are the planes: each region is cut by one across its longest direction, at its median. So
points off the samples (a rendered pixel) get their code by going down the planes, in any mesh.
Nodes of the tree are in heap order: node i has the children 2i + 1 (bit 0) and 2i + 2 (bit 1).
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import zlib
from dataclasses import dataclass

import numpy as np

MAX_BITS = 20
# A direction with no simple ratio to any mesh's axes. It gives every cut its sign, and a share of
# it in every cut tells points apart that lie in one plane across the longest direction.
_GENERIC = np.array([0.8017, 0.4858, 0.3481]) / math.sqrt(0.8017**2 + 0.4858**2 + 0.3481**2)
_TILT = 1e-3
# A pixel is as good as its first bits: the sixth halves patches of a thirty-second of the surface.
# Certainty of the later bits says little of the pose, and where they are all in doubt much of the
# noise looks as certain as the truth (docs/dense_codes.md has the comparison).
COARSE_BITS = 6
_DECIMALS = 9  # points nearer than a nanometre are one: far above the rounding of a projection


@dataclass(frozen=True)
class CodeTable:
    """What decoding needs: points (2**bits, 3) float32, the middle of each code's patch, metres in
    the object's frame. Raises ValueError for another count or a point that is not finite."""

    points: np.ndarray

    def __post_init__(self) -> None:
        points = np.ascontiguousarray(self.points, dtype=np.float32)
        if points.ndim != 2 or points.shape[1] != 3 or not np.isfinite(points).all():
            raise ValueError(f"code points must be finite (N, 3), got {points.shape}")
        bits = max(len(points), 1).bit_length() - 1
        if len(points) != 1 << bits or not 1 <= bits <= MAX_BITS:
            raise ValueError(f"code points must be 2 to 2**{MAX_BITS} and a power of two, "
                             f"got {len(points)}")
        object.__setattr__(self, "points", _constant(points))

    @property
    def bits(self) -> int:
        return len(self.points).bit_length() - 1


@dataclass(frozen=True)
class CodeTree(CodeTable):
    """A table together with the planes that encode: a point x goes to the child of bit 1 where
    normal . x > offset. normals: (2**bits - 1, 3), offsets: (2**bits - 1,) float64, heap order.

    points are the means of the samples that the tree was built from, patch by patch.
    """

    normals: np.ndarray
    offsets: np.ndarray

    def __post_init__(self) -> None:
        super().__post_init__()
        nodes = len(self.points) - 1
        for name, shape in (("normals", (nodes, 3)), ("offsets", (nodes,))):
            value = np.ascontiguousarray(getattr(self, name), dtype=np.float64)
            if value.shape != shape:
                raise ValueError(f"{name} must be {shape}, got {value.shape}")
            object.__setattr__(self, name, _constant(value))


def _constant(array: np.ndarray) -> np.ndarray:
    array = array.view()
    array.setflags(write=False)
    return array


# --- building and encoding ---------------------------------------------------------------------


def build_code_tree(points: np.ndarray, bits: int = 16) -> CodeTree:
    """Tree of `bits` levels over surface samples (N, 3), metres, object frame.

    Every region is halved at the median along its principal axis, so regions of one level hold the
    same number of samples to within one. The order of the samples does not matter, nor do samples
    that occur twice. Four samples a patch or more (2**18 for 16 bits) make even patches.
    Raises ValueError for points that are not finite, and where there are fewer different ones than
    codes: a mesh's bare vertices are often too few.
    """
    if isinstance(bits, bool) or not 1 <= bits <= MAX_BITS:
        raise ValueError(f"bits must be 1 to {MAX_BITS}, got {bits!r}")
    points = np.asarray(points, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 3 or not np.isfinite(points).all():
        raise ValueError(f"points must be finite (N, 3), got {points.shape}")
    given = len(points)
    points = _distinct(points)
    if len(points) < 1 << bits:
        raise ValueError(
            f"too coarse for {bits} bits: {len(points)} different points of {given} given, but "
            f"{1 << bits} codes need at least as many; sample the mesh's surface more densely or "
            "use fewer bits"
        )
    normals, offsets = [], []
    starts = np.array([0])
    for _ in range(bits):
        points, starts, plane_normals, plane_offsets = _halve(points, starts)
        normals.append(plane_normals)
        offsets.append(plane_offsets)
    counts = _counts(starts, len(points))
    means = np.add.reduceat(points, starts, axis=0) / counts[:, None]
    return CodeTree(means, np.concatenate(normals), np.concatenate(offsets))


def _distinct(points: np.ndarray) -> np.ndarray:
    """Different points in one fixed order, whatever order they came in."""
    points = np.round(points, _DECIMALS) + 0.0  # no negative zero
    points = points[np.lexsort(points.T)]
    new = np.ones(len(points), dtype=bool)
    new[1:] = (points[1:] != points[:-1]).any(axis=1)
    return points[new]


def _counts(starts: np.ndarray, total: int) -> np.ndarray:
    return np.diff(np.append(starts, total))


def _halve(
    points: np.ndarray, starts: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """All regions of a level at once: points sorted by region, starts (G,) of the regions ->
    points sorted by the 2G halves, their starts, normals (G, 3) and offsets (G,) of the cuts."""
    counts = _counts(starts, len(points))
    region = np.repeat(np.arange(len(starts)), counts)
    normals = _principal_axes(points, starts, counts, region)
    along = _project(points, normals[region])
    order = np.lexsort((along, region))
    middles = starts + (counts + 1) // 2
    offsets = 0.5 * (along[order[middles - 1]] + along[order[middles]])
    return points[order], np.stack([starts, middles], axis=1).reshape(-1), normals, offsets


def _principal_axes(
    points: np.ndarray, starts: np.ndarray, counts: np.ndarray, region: np.ndarray
) -> np.ndarray:
    """Unit direction (G, 3) of the largest spread of every region, slightly tilted."""
    means = np.add.reduceat(points, starts, axis=0) / counts[:, None]
    centred = points - means[region]
    products = (centred[:, :, None] * centred[:, None, :]).reshape(-1, 9)
    scatter = np.add.reduceat(products, starts, axis=0).reshape(-1, 3, 3)
    axes = np.linalg.eigh(scatter)[1][:, :, 2]
    axes *= np.where(axes @ _GENERIC < 0, -1.0, 1.0)[:, None]
    axes += _TILT * _GENERIC
    return axes / np.linalg.norm(axes, axis=1, keepdims=True)


def _project(points: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """(..., 3), (..., 3) -> (...). Written out so that building and encoding round alike."""
    return (points[..., 0] * normals[..., 0] + points[..., 1] * normals[..., 1]
            + points[..., 2] * normals[..., 2])


def encode(tree: CodeTree, points: np.ndarray) -> np.ndarray:
    """Codes of surface points (..., 3), metres, object frame -> (...) int32, 0 to 2**bits - 1.

    The highest bit is the coarsest cut. A point that is not finite gets some code without meaning.
    """
    points = np.asarray(points, dtype=np.float64)
    if points.ndim < 1 or points.shape[-1] != 3:
        raise ValueError(f"points must be (..., 3), got {points.shape}")
    node = np.zeros(points.shape[:-1], dtype=np.int32)
    for _ in range(tree.bits):
        beyond = _project(points, tree.normals[node]) > tree.offsets[node]
        node = 2 * node + 1 + beyond
    return (node - (len(tree.points) - 1)).astype(np.int32)


def codes_to_bits(codes: np.ndarray, bits: int) -> np.ndarray:
    """Codes (...) -> (..., bits) bool, the coarsest first."""
    return (np.asarray(codes)[..., None] >> np.arange(bits - 1, -1, -1)) & 1 != 0


def bits_to_codes(bits: np.ndarray) -> np.ndarray:
    """Bits (..., bits), the coarsest first, true or false -> codes (...) int32."""
    bits = np.asarray(bits, dtype=bool)
    codes = np.zeros(bits.shape[:-1], dtype=np.int32)
    for level in range(bits.shape[-1]):
        codes = 2 * codes + bits[..., level]
    return codes


# --- decoding ----------------------------------------------------------------------------------


@dataclass
class CodePairs:
    """2D-3D pairs of one crop, the most certain first.

    pixels: (P, 2) x, y in input px. points: (P, 3) metres, object frame. weights: (P,) 0..1.
    patches: (P,) int32, the first `COARSE_BITS` bits as a number: where on the object it is.
    """

    pixels: np.ndarray
    points: np.ndarray
    weights: np.ndarray
    patches: np.ndarray


def grid_pixels(cells: np.ndarray, width: int, stride: int) -> np.ndarray:
    """Centres (n, 2) x, y in input px of the output cells with flat index `cells` (n,).

    width: columns of the output. Column j covers `stride` input pixels and has its centre at
    (j + 0.5) * stride - 0.5, pixel centres at integers as everywhere (`crop.py`, `votes.py`).
    """
    rows, columns = np.divmod(np.asarray(cells), width)
    return (np.stack([columns, rows], axis=1) + 0.5) * stride - 0.5


def decode(
    table: CodeTable,
    mask_scores: np.ndarray,
    code_probabilities: np.ndarray,
    *,
    stride: int = 2,
    mask_threshold: float = 0.5,
    max_pairs: int = 400,
) -> CodePairs:
    """Network outputs of one class in one crop -> pairs for PnP.

    mask_scores: (h, w) 0..1. code_probabilities: (bits, h, w) 0..1, the coarsest bit first.
    stride: input pixels per output pixel, see `grid_pixels`.
    A pixel's weight is its mask score times the probability that its first `COARSE_BITS` bits are
    right: those decide whether the point is roughly or not at all the right one. Where more than
    `max_pairs` pixels are on the object, the best of each little square is taken, so that they
    stay spread over it. Pixels that are not finite are left out.
    """
    mask = np.asarray(mask_scores)
    probabilities = np.asarray(code_probabilities)
    if mask.ndim != 2 or probabilities.shape != (table.bits, *mask.shape):
        raise ValueError(
            f"mask_scores must be (h, w) and code_probabilities ({table.bits}, h, w), "
            f"got {mask.shape} and {probabilities.shape}"
        )
    if max_pairs < 1:
        raise ValueError(f"max_pairs must be at least 1, got {max_pairs}")
    width = mask.shape[1]
    mask, probabilities = mask.reshape(-1), probabilities.reshape(table.bits, -1)
    cells = np.flatnonzero((mask >= mask_threshold) & (mask > 0) & np.isfinite(mask))
    weights = mask[cells]
    for p in probabilities[:COARSE_BITS]:
        p = p[cells]
        weights = weights * np.maximum(p, 1.0 - p)
    weights = np.where(np.isfinite(weights), weights, 0.0)
    chosen = _spread_best(cells, width, weights, max_pairs)
    bits = probabilities[:, cells[chosen]].T
    usable = (weights[chosen] > 0) & np.isfinite(bits).all(axis=1)
    chosen, codes = chosen[usable], bits_to_codes(bits[usable] > 0.5)
    return CodePairs(
        pixels=grid_pixels(cells[chosen], width, stride),
        points=table.points[codes].astype(np.float64),
        weights=weights[chosen].astype(np.float64),
        patches=codes >> max(0, table.bits - COARSE_BITS),
    )


def _spread_best(
    cells: np.ndarray, width: int, weights: np.ndarray, max_pairs: int
) -> np.ndarray:
    """Which of the cells (n,), ascending, to keep -> indices, heaviest first: the best of each
    square of the grid, squares as small as `max_pairs` allows."""
    chosen = np.arange(len(cells))
    if len(cells) > max_pairs:
        side = math.ceil(math.sqrt(len(cells) / max_pairs))
        rows, columns = np.divmod(cells, width)
        shape = (rows[-1] // side + 1, side, width // side + 1, side)
        best = np.full((shape[0] * side, shape[2] * side), -1.0, dtype=weights.dtype)
        index = np.zeros(best.shape, dtype=np.int64)
        best[rows, columns], index[rows, columns] = weights, chosen
        # squares in rows, their cells in columns: a maximum of each costs less than sorting all
        best, index = (
            array.reshape(shape).swapaxes(1, 2).reshape(-1, side * side) for array in (best, index)
        )
        squares = np.arange(len(best))
        first = best.argmax(axis=1)
        chosen = index[squares, first][best[squares, first] >= 0]
    return chosen[np.argsort(-weights[chosen], kind="stable")[:max_pairs]]


# --- text --------------------------------------------------------------------------------------

_TABLE_FORMAT = "codes-1"


def code_table_to_text(table: CodeTable) -> str:
    """A table as one line of JSON for a manifest.

    Coordinates are 16-bit steps of the box around the points (5 micrometres for 30 cm), as
    differences along the codes, which are small since neighbours in code are neighbours in space.
    """
    low, high = table.points.min(axis=0), table.points.max(axis=0)
    low, high = low.astype(np.float64), high.astype(np.float64)
    extent = np.where(high > low, high - low, 1.0)
    steps = np.rint((table.points - low) / extent * 65535.0).astype(np.uint16)
    differences = np.diff(steps.T, axis=1, prepend=np.uint16(0)).astype("<u2")  # modulo 2**16
    planes = differences.reshape(-1).view(np.uint8).reshape(-1, 2).T  # high bytes are mostly alike
    data = base64.b64encode(zlib.compress(planes.tobytes(), 9)).decode("ascii")
    return json.dumps({"format": _TABLE_FORMAT, "bits": table.bits, "low": low.tolist(),
                       "high": high.tolist(), "data": data})


def code_table_from_text(text: str) -> CodeTable:
    """The table of `code_table_to_text`; ValueError that says what is wrong with the text."""
    try:
        fields = json.loads(text)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the code table is not JSON: {error}") from error
    expected = {"format", "bits", "low", "high", "data"}
    if not isinstance(fields, dict) or set(fields) != expected:
        raise ValueError(f"a code table has the keys {', '.join(sorted(expected))}")
    if fields["format"] != _TABLE_FORMAT:
        raise ValueError(f"code table format {fields['format']!r} is not {_TABLE_FORMAT!r}, the "
                         "only one that this version of kd_pose reads")
    bits = fields["bits"]
    if isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= MAX_BITS:
        raise ValueError(f"code table: bits must be 1 to {MAX_BITS}, got {bits!r}")
    try:
        low, high = (np.array(fields[name], dtype=np.float64) for name in ("low", "high"))
    except (TypeError, ValueError) as error:
        raise ValueError(f"code table: low and high must be numbers: {error}") from error
    if low.shape != (3,) or high.shape != (3,) or not np.isfinite([low, high]).all():
        raise ValueError("code table: low and high must be 3 finite numbers each")
    steps = np.cumsum(_unpack(fields["data"], bits), axis=1, dtype=np.uint16).T
    return CodeTable(low + steps / 65535.0 * np.where(high > low, high - low, 0.0))


def _unpack(data: str, bits: int) -> np.ndarray:
    """Differences along the codes (3, 2**bits) uint16; never more memory than those need."""
    size = 6 << bits
    try:
        stream = zlib.decompressobj()
        raw = stream.decompress(base64.b64decode(data, validate=True), size + 1)
    except (TypeError, ValueError, binascii.Error, zlib.error) as error:
        raise ValueError(f"code table: damaged data: {error}") from error
    if len(raw) != size or not stream.eof:
        raise ValueError(f"code table: {bits} bits need {size} bytes of data; these are another "
                         "number or damaged")
    planes = np.frombuffer(raw, dtype=np.uint8).reshape(2, -1).T
    return np.ascontiguousarray(planes).view("<u2").reshape(3, -1)
