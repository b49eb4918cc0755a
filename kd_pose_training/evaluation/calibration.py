"""How much larger the true errors are than the pose covariance says, from a validation set.

The covariance of PnP knows only the scatter of the votes; errors that all votes share are not in
it. One factor per model mends the size: with it, half of the validation errors lie inside the
ellipsoid that should hold half of them.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import chi2

from kd_pose.manifest import ObjectSpec, read_manifest
from kd_pose_training.evaluation.object_pose import EvaluationResult, InstanceResult, evaluate

POSE_NUMBERS = 6
MIN_POSES = 20


def covariance_factor(distances2: Sequence[float], numbers: int = POSE_NUMBERS) -> float:
    """Factor on the covariance that brings the median squared Mahalanobis distance to its
    expectation under a chi-square law of ``numbers`` degrees of freedom.

    The median, since a few wrong poses must not widen the ellipsoids of all the others.

    Raises:
        ValueError: fewer than 20 finite distances.
    """
    values = np.asarray(distances2, dtype=np.float64)
    values = values[np.isfinite(values)]
    if len(values) < MIN_POSES:
        raise ValueError(f"{len(values)} poses with a covariance are too few to calibrate it; "
                         f"at least {MIN_POSES} are needed")
    return float(np.median(values) / chi2.ppf(0.5, numbers))


def usable_distances(instances: Sequence[InstanceResult],
                     specs: Sequence[ObjectSpec]) -> list[float]:
    """Squared distances of poses whose six numbers are all observable.

    Objects with a continuous symmetry are left out: their error about the axis has no meaning.
    """
    turning = {spec.name for spec in specs if spec.symmetries_continuous}
    return [item.mahalanobis2 for item in instances
            if item.mahalanobis2 is not None and item.name not in turning]


def calibrated_scale(result: EvaluationResult, scale: float) -> float:
    """The manifest's new ``covariance_scale`` from errors measured with ``scale``."""
    return scale * covariance_factor(usable_distances(result.instances, result.specs))


def calibrate(model_path: str | Path, detector_path: str | Path | None, dataset: Any,
              **settings: Any) -> float:
    """Evaluate and return the ``covariance_scale`` for the model's manifest.

    A model that was never calibrated gives no covariance, so a copy of it with a scale of 1 is
    run. ``settings``: see :func:`kd_pose_training.evaluation.object_pose.evaluate`.
    """
    from kd_pose_training.export import embed_manifest
    manifest = dataclasses.replace(read_manifest(model_path), covariance_scale=1.0)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "model.onnx"
        copy.write_bytes(Path(model_path).read_bytes())
        embed_manifest(copy, manifest)
        return calibrated_scale(evaluate(copy, detector_path, dataset, **settings), 1.0)
