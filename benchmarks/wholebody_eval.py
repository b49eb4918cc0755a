"""Whole-body AP and AR, six parts, against xtcocotools on random annotations and estimates.

Reading the files is left out on both sides. Needs NumPy 1, see docs/wholebody_data.md.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np

from benchmarks.timing import Row, interleave, row
from kd_pose.wholebody_keypoints import SIGMAS
from kd_pose_training.evaluation.oks import SCORED
from kd_pose_training.evaluation.wholebody import STATISTICS, average_precision, read_truth
from kd_pose_training.evaluation.wholebody_results import read_results

PEERS = ("xtcocotools",)
INSTALL = "xtcocotools in an environment with NumPy 1, see docs/wholebody_data.md"
PICTURES, GOAL, TOLERANCE = 100, 8.0, 1e-9
KINDS = dict(zip(SCORED, ("body", "foot", "face", "lefthand", "righthand", "wholebody")))


def run(pairs: int = 30) -> list[Row]:
    from xtcocotools.coco import COCO
    from xtcocotools.cocoeval import COCOeval
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from helpers.wholebody_files import random_annotations, random_results

    warnings.simplefilter("ignore")
    rng = np.random.default_rng(0)
    data = random_annotations(rng, PICTURES)
    results = random_results(rng, data, extra=8)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, name) for name in ("truth.json", "results.json")]
        for path, content in zip(paths, (data, results)):
            path.write_text(json.dumps(content))
        with contextlib.redirect_stdout(io.StringIO()):
            peer_truth = COCO(str(paths[0]))
            peer_results = peer_truth.loadRes(str(paths[1]))
        truth, estimates = read_truth(paths[0]), read_results(paths[1])

    def peer(_):
        table = {}
        with contextlib.redirect_stdout(io.StringIO()):
            for part, kind in KINDS.items():
                evaluation = COCOeval(peer_truth, peer_results, f"keypoints_{kind}",
                                      SIGMAS[SCORED[part]])
                evaluation.params.useSegm = None
                evaluation.evaluate()
                evaluation.accumulate()
                evaluation.summarize()
                table[part] = evaluation.stats
        return table

    def ours(_):
        return average_precision(truth, estimates)

    expected, found = peer(0), ours(0)
    difference = max(abs(value - found[part][name]) for part, values in expected.items()
                     for name, value in zip(STATISTICS, values))
    times = interleave(peer, ours, pairs)
    return [row(f"whole-body AP of {PICTURES} pictures, {len(estimates)} estimates, "
                "vs xtcocotools", times, GOAL, f"difference {difference:.0e}",
                difference <= TOLERANCE)]
