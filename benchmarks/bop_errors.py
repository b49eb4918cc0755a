"""BOP's pose errors against the benchmark's own program, bop_toolkit, in the same numpy.

20 pairs of poses of a body of 2562 vertices; VSD: 5 pairs in one 640x480 picture, given the same
rendered depths, so that rendering is not in it.
"""

from __future__ import annotations

import types

import numpy as np

from benchmarks.timing import Row, interleave, row
from kd_pose.geometry import make_pose, rotation_from_vector
from kd_pose_training.evaluation.bop_errors import DepthPatch, PoseErrors, symmetry_members, vsd

PEERS = ("bop_toolkit_lib",)
INSTALL = "--no-deps git+https://github.com/thodan/bop_toolkit imageio"
PAIRS, PICTURES = 20, 5
TOLERANCE = 1e-6  # millimetres, pixels, and of a VSD
TAUS = np.arange(0.05, 0.51, 0.05)
K = np.array([[572.4114, 0, 325.2611], [0, 573.57043, 242.04899], [0, 0, 1]])
FLIP = ((-1.0, 0, 0, 0, 0, -1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1),)
TURN = (((0.0, 0.0, 1.0), (0.0, 0.0, 0.0)),)


def body() -> np.ndarray:
    """Vertices (2562, 3), metres, about 100 mm long."""
    import trimesh
    points = trimesh.creation.icosphere(subdivisions=4).vertices
    return points * (0.05, 0.035, 0.025) * (1 + 0.05 * np.sin(9 * points[:, [1, 2, 0]]))


def poses(count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    true = np.stack([make_pose(rotation_from_vector(rng.normal(size=3)),
                               rng.normal(size=3) * 0.1 + (0, 0, 0.8)) for _ in range(count)])
    return true @ np.stack([make_pose(rotation_from_vector(0.3 * rng.normal(size=3)),
                                      0.01 * rng.normal(size=3)) for _ in range(count)]), true


def run(pairs: int = 30) -> list[Row]:
    rows = []
    for label, discrete, continuous, goals in (
            ("no symmetry", (), (), {"add": 2, "adi": 1.2, "mssd": 2, "mspd": 1}),
            ("2 members", FLIP, (), {"mssd": 3, "mspd": 1.2}),
            ("315 members", (), TURN, {"mssd": 10, "mspd": 10})):
        spec = types.SimpleNamespace(symmetries_discrete=discrete,
                                     symmetries_continuous=continuous)
        rows += [_case(name, label, spec, goal, pairs) for name, goal in goals.items()]
    return [*rows, _vsd(pairs)]


def _case(name: str, label: str, spec, goal: float, pairs: int) -> Row:
    from bop_toolkit_lib import misc, pose_error
    est, true = poses(PAIRS)
    millimetres = 1000 * body()
    arguments = [(e[:3, :3], 1000 * e[:3, 3:], g[:3, :3], 1000 * g[:3, 3:])
                 for e, g in zip(est, true)]
    more = [K] if name == "mspd" else []
    members = misc.get_symmetry_transformations(
        {"symmetries_discrete": spec.symmetries_discrete,
         "symmetries_continuous": [{"axis": a, "offset": o}
                                   for a, o in spec.symmetries_continuous]}, 0.01)
    last = [members] if name in ("mssd", "mspd") else []
    function = getattr(pose_error, name)
    errors = PoseErrors(body(), symmetry_members(spec))
    method = getattr(errors, {"adi": "add_s"}.get(name, name))

    def peer(_: int) -> list[float]:
        return [function(*pair, *more, millimetres, *last) for pair in arguments]

    def ours(_: int) -> np.ndarray:
        return method(est, true, *more) * (1 if name == "mspd" else 1000)

    difference = float(np.abs(np.array(peer(0)) - ours(0)).max())
    slow = len(members) > 10
    times = interleave(peer, ours, pairs, warm_up=1 if slow else 3)
    return row(f"{name.upper()} of {PAIRS} pairs, {label}, vs bop_toolkit", times, goal,
               f"difference {difference:.0e}", difference <= TOLERANCE)


def _vsd(pairs: int) -> Row:
    from bop_toolkit_lib import pose_error
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:480, :640]

    def picture(centre: tuple[float, float], depth: float) -> np.ndarray:
        r2 = ((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / 70.0**2
        return np.where(r2 < 1, depth - 50 * np.sqrt(np.maximum(0, 1 - r2)), 0).astype(np.float32)

    true = picture((300, 220), 800)
    guesses = [picture(tuple(rng.normal((300, 220), 8)), rng.normal(800, 15))
               for _ in range(PICTURES)]
    measured = np.where(true > 0, true, 900) + rng.normal(0, 8, true.shape)
    measured = measured.astype(np.float32)
    zero = np.zeros((3, 1))

    def peer(_: int) -> list[list[float]]:
        found = []
        for guess in guesses:
            given = iter((guess, true))
            renderer = types.SimpleNamespace(
                render_object=lambda *_, given=given: {"depth": next(given)})
            found.append(pose_error.vsd(np.eye(3), zero, np.eye(3), zero, measured, K, 15,
                                        list(TAUS), True, 100.0, renderer, 1))
        return found

    def ours(_: int) -> np.ndarray:
        truth = DepthPatch.around(true)
        return vsd(measured, K, [DepthPatch.around(guess) for guess in guesses],
                   [truth] * PICTURES, delta=15, taus=TAUS, diameters=[100.0] * PICTURES)

    difference = float(np.abs(np.array(peer(0)) - ours(0)).max())
    return row(f"VSD of {PICTURES} pairs, 640x480, vs bop_toolkit", interleave(peer, ours, pairs),
               5, f"difference {difference:.0e}", difference <= TOLERANCE)
