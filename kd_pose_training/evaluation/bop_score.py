"""Scores of pose estimates as the BOP benchmark counts them, beside ADD(-S)-0.1d.

AR = mean of AR_VSD, AR_MSSD and AR_MSPD, each a mean of recalls over thresholds: Hodan et al.,
"BOP Challenge 2020", ECCVW 2020; matching and thresholds as in eval_bop19_pose.py of
github.com/thodan/bop_toolkit. Diameters, symmetries and targets are the set's own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kd_pose_training.data.bop import BopDataset
from kd_pose_training.data.bop_files import BopError
from kd_pose_training.data.bop_models import load_mesh_surface
from kd_pose_training.data.bop_results import BopEstimate
from kd_pose_training.data.bop_targets import wanted_instances
from kd_pose_training.evaluation.bop_errors import DepthPatch, PoseErrors, symmetry_members, vsd
from kd_pose_training.evaluation.depth_render import DepthRenderer
from kd_pose_training.evaluation.errors import is_symmetric
from kd_pose_training.evaluation.report import lay_out

THETAS = np.arange(0.05, 0.51, 0.05)  # of VSD, and of MSSD in diameters
THETAS_PX = np.arange(5, 51, 5)  # of MSPD in a picture of this width:
WIDTH = 640
TAUS = np.arange(0.05, 0.51, 0.05)  # of VSD in diameters
DELTA_M = 0.015
AD_THETA = 0.1
MIN_VISIB = 0.1  # of targets where no file names them
KINDS = ("vsd", "mssd", "mspd")
# key in the summary, heading, format
COLUMNS = (
    ("targets", "n", "{:d}"),
    ("diameter_mm", "diameter mm", "{:.1f}"),
    ("ar_vsd", "AR VSD", "{:.1%}"),
    ("ar_mssd", "AR MSSD", "{:.1%}"),
    ("ar_mspd", "AR MSPD", "{:.1%}"),
    ("ar", "AR", "{:.1%}"),
    ("add_recall", "ADD(-S)-0.1d", "{:.1%}"),
)


@dataclass(frozen=True)
class Target:
    """An object to be found in an image. truths: poses of its instances, the most visible first;
    estimates: as many of the best ones."""

    frame: Any
    obj_id: int
    truths: tuple[np.ndarray, ...]
    estimates: tuple[BopEstimate, ...] = ()


@dataclass
class ObjectScore:
    """Counts of one object. hits: right estimates by kind of error and threshold."""

    obj_id: int
    name: str
    diameter: float
    add_s: bool
    targets: int = 0
    hits: dict[str, np.ndarray] = field(default_factory=dict)

    def recall(self, kind: str) -> float:
        """Mean recall over the thresholds; 0 without targets."""
        return float((self.hits[kind] / self.targets).mean()) if self.targets else 0.0


def find_targets(dataset: BopDataset, estimates: Sequence[BopEstimate]) -> list[Target]:
    """What is to be found, with what was: as the set's targets say, else every instance of which
    at least a tenth is visible."""
    by_place: dict[tuple[int, int, int], list[BopEstimate]] = {}
    for item in estimates:
        by_place.setdefault((item.scene_id, item.im_id, item.obj_id), []).append(item)
    found = []
    for frame in dataset.frames:
        for obj_id, truths in wanted_instances(dataset.targets, frame, MIN_VISIB).items():
            offered = by_place.get((frame.scene_id, frame.im_id, obj_id), ())
            count = dataset.targets.get((frame.scene_id, frame.im_id), {}).get(obj_id, len(truths))
            best = sorted(offered, key=lambda item: -item.score)[:count]
            found.append(Target(frame, obj_id, tuple(item.T_cam_obj for item in truths),
                                tuple(best)))
    return found


def score_targets(dataset: BopDataset, targets: Sequence[Target], *,
                  renderer: DepthRenderer | None, add_s: Collection[int] | None = None,
                  delta: float = DELTA_M, progress: bool = True) -> dict[int, ObjectScore]:
    """Count the hits of every object that is a target.

    Args:
        renderer: for VSD, which needs the set's depth pictures; None: without VSD.
        add_s: objects whose AD is ADD-S; None: those with symmetries.

    Raises:
        BopError: a mesh, or a depth picture, is missing or wrong.
    """
    scores: dict[int, ObjectScore] = {}
    for obj_id in sorted({target.obj_id for target in targets}):
        model = dataset.models[obj_id]
        vertices, faces = load_mesh_surface(model)
        symmetric = is_symmetric(model.spec) if add_s is None else obj_id in add_s
        score = ObjectScore(obj_id, model.name, model.diameter, symmetric)
        mine = [target for target in targets if target.obj_id == obj_id]
        score.targets = sum(len(target.truths) for target in mine)
        errors = PoseErrors(vertices, symmetry_members(model.spec))
        found = _distances(errors, mine, score)
        score.hits = {"ad": hits(found["ad"], [AD_THETA]), "mssd": hits(found["mssd"], THETAS),
                      "mspd": hits(found["mspd"], THETAS_PX)}
        scores[obj_id] = score
        if renderer is not None:
            if not len(faces):
                raise BopError(f"{model.mesh_path}: has no triangles, which VSD needs")
            renderer.add_object(obj_id, vertices, faces)
    if renderer is not None:
        surfaces = _surfaces(targets, renderer, dataset, delta, progress)
        for score in scores.values():
            mine = [item for target, item in zip(targets, surfaces)
                    if target.obj_id == score.obj_id]
            score.hits["vsd"] = np.concatenate(
                [hits([item[..., i] for item in mine], THETAS) for i in range(len(TAUS))])
    return scores


def _distances(errors: PoseErrors, targets: Sequence[Target],
               score: ObjectScore) -> dict[str, list[np.ndarray]]:
    """AD and MSSD in diameters, MSPD in pixels of a 640 wide picture: (estimates, truths) each."""
    shapes = [(len(target.estimates), len(target.truths)) for target in targets]
    pairs = [(item.T_cam_obj, truth, target.frame.K) for target in targets
             for item in target.estimates for truth in target.truths]
    nothing = (np.zeros((0, 4, 4)),) * 3
    est, true, K = (np.stack(part) for part in zip(*pairs)) if pairs else nothing
    # Estimates so far off are wrong by any threshold.
    near = np.linalg.norm(est[:, :3, 3] - true[:, :3, 3], axis=1) < score.diameter
    distance = {"ad": errors.add_s if score.add_s else errors.add, "mssd": errors.mssd}
    values = {}
    for name, function in distance.items():
        values[name] = np.full(len(est), np.inf)
        values[name][near] = function(est[near], true[near]) / score.diameter
    values["mspd"] = errors.mspd(est, true, K) if len(est) else np.zeros(0)
    ends = np.cumsum([k * g for k, g in shapes])[:-1]
    found = {name: [part.reshape(shape) for part, shape in zip(np.split(value, ends), shapes)]
             for name, value in values.items()}
    widths: dict[int, int] = {}  # one per scene
    for i, target in enumerate(targets):
        if target.estimates:
            scene = target.frame.scene_id
            if scene not in widths:
                widths[scene] = target.frame.load_image().shape[1]
            found["mspd"][i] = found["mspd"][i] * (WIDTH / widths[scene])
    return found


def _surfaces(targets: Sequence[Target], renderer: DepthRenderer, dataset: BopDataset,
              delta: float, progress: bool) -> list[np.ndarray]:
    """VSD (estimates, truths, taus) of every target."""
    from tqdm import tqdm
    found: list[np.ndarray] = []
    depth, last = np.zeros((0, 0), np.float32), None
    hidden = None if progress else True  # None: shown on a terminal only
    for target in tqdm(targets, "VSD", disable=hidden, unit=" targets", leave=False):
        frame, diameter = target.frame, dataset.models[target.obj_id].diameter
        result = np.ones((len(target.estimates), len(target.truths), len(TAUS)))
        found.append(result)
        near = [(i, j) for i, item in enumerate(target.estimates)
                for j, truth in enumerate(target.truths)
                if _may_overlap(item.T_cam_obj, truth, diameter)]
        if not near:
            continue
        if frame is not last:
            depth, last = frame.load_depth(), frame
        size_wh = depth.shape[1], depth.shape[0]

        def draw(T: np.ndarray, frame: Any = frame, size_wh: tuple[int, int] = size_wh,
                 obj_id: int = target.obj_id) -> DepthPatch:
            return renderer.render(obj_id, T, frame.K, size_wh)

        truths = {j: draw(target.truths[j]) for j in {j for _, j in near}}
        guesses = {i: draw(target.estimates[i].T_cam_obj) for i in {i for i, _ in near}}
        values = vsd(depth, frame.K, [guesses[i] for i, _ in near], [truths[j] for _, j in near],
                     delta=delta, taus=TAUS, diameters=[diameter] * len(near))
        for (i, j), value in zip(near, values):
            result[i, j] = value
    return found


def _may_overlap(T_a: np.ndarray, T_b: np.ndarray, diameter: float) -> bool:
    """Whether the images of balls around both poses overlap, nearly; else VSD is 1 anyway."""
    a, b = T_a[:3, 3], T_b[:3, 3]
    if a[2] == 0 or b[2] == 0:
        return False
    reach = 0.5 * diameter * (1 / a[2] + 1 / b[2])
    return bool(np.linalg.norm(a[:2] / a[2] - b[:2] / b[2]) < reach)


def hits(errors: Sequence[np.ndarray], thetas: Sequence[float]) -> np.ndarray:
    """Instances found, summed over targets, for each threshold.

    errors: (estimates, truths) of every target, estimates by falling score. In that order each
    takes, of the truths still free, the one with the least error, if it is below the threshold.
    """
    thetas = np.asarray(thetas, dtype=np.float64)
    single = np.array([item[0, 0] for item in errors if item.shape == (1, 1)])
    total = (single[:, None] < thetas).sum(axis=0)
    for item in errors:
        if item.size > 1:
            total = total + [_matches(item, theta) for theta in thetas]
    return total


def _matches(errors: np.ndarray, theta: float) -> int:
    left, count = np.where(errors < theta, errors, np.inf), 0
    for row in range(len(left)):
        best = int(left[row].argmin())
        if left[row, best] < np.inf:
            left[:, best] = np.inf
            count += 1
    return count


def summarise(scores: Mapping[int, ObjectScore]) -> dict[str, Any]:
    """Plain numbers of at least one object: each, over all targets (BOP's own average recalls)
    and as the mean of the objects (which is how ADD(-S) is usually given)."""
    objects = list(scores.values())
    rows = {item.name: _figures(item) for item in objects}
    together = ObjectScore(0, "all targets", 0.0, False, sum(item.targets for item in objects))
    for kind in objects[0].hits:
        together.hits[kind] = sum(item.hits[kind] for item in objects)
    whole = _figures(together)
    keys = ("ar_vsd", "ar_mssd", "ar_mspd", "ar", "add_recall")
    mean = {key: None if whole[key] is None
            else float(np.mean([row[key] for row in rows.values()])) for key in keys}
    return {"objects": rows, "all": {key: whole[key] for key in ("targets", *keys)},
            "mean": {"targets": whole["targets"], **mean}}


def _figures(score: ObjectScore) -> dict[str, Any]:
    recalls = {kind: score.recall(kind) if kind in score.hits else None for kind in KINDS}
    complete = None not in recalls.values()
    return {"obj_id": score.obj_id, "measure": "ADD-S" if score.add_s else "ADD",
            "diameter_mm": 1e3 * score.diameter, "targets": score.targets,
            **{f"ar_{kind}": value for kind, value in recalls.items()},
            "ar": float(np.mean(list(recalls.values()))) if complete else None,
            "add_recall": score.recall("ad")}


def table(summary: Mapping[str, Any]) -> str:
    """A summary as text: per object, over all targets, and the mean of the objects."""
    time = summary["time_per_image_s"]
    head = (f"{summary['results']}, {summary['data']}: {summary['images']} images"
            + ("" if time is None else f", {time:.3f} s an image"))
    text = lay_out(summary["objects"],
                   {"all targets": summary["all"], "mean": summary["mean"]}, COLUMNS)
    return f"{head}\n{text}"
