"""From a whole-body run, or a file of MMPose, to the .onnx file of the runtime."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kd_pose.crop import GREY
from kd_pose_training import strict
from kd_pose_training.data.people_sets import open_people
from kd_pose_training.data.person_batch import Encoding
from kd_pose_training.data.person_dataset import CROP_PAD
from kd_pose_training.export import OPSET
from kd_pose_training.export_wholebody import MMPOSE_BORDER, export_wholebody
from kd_pose_training.models.simcc_weights import SimccWeights, build_from, read_weights
from kd_pose_training.training.wholebody import person_set, recipe_of
from kd_pose_training.wholebody_config import WholebodyTrainConfig

PICTURES = 3  # of the run's own that the file is compared on


def export_wholebody_run(checkpoint: str | Path, output: str | Path, *, use_ema: bool = True,
                         part: str = "auto", metrics: Mapping[str, Any] | None = None,
                         opset: int = OPSET) -> Path:
    """Write the network of a checkpoint as an ONNX file with its manifest.

    Args:
        checkpoint: of a run, its folder (its best.pt, else its last.pt), or a file of MMPose.
        output: file to write, ending in ``.onnx``; an earlier one is replaced on success only.
        use_ema: take the averaged weights, where there are any. part: of an MMPose file.
        metrics: what the model scored, for the manifest.

    Returns:
        The output's path.

    Raises:
        ExportError: see :func:`kd_pose_training.export_wholebody.export_wholebody`.
        CheckpointError: the checkpoint cannot be read, or is no whole network.
    """
    weights = read_weights(checkpoint, part, averaged=use_ema)
    network = build_from(weights).eval()
    notes: dict[str, Any] = {
        "size": weights.size, "checkpoint": weights.path.name,
        "exported": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")}
    if weights.state is None:
        notes |= {"weights": "MMPose", "pictures": "none (weights of MMPose)"}
        return export_wholebody(network, output, crop_pad=CROP_PAD, border_value=MMPOSE_BORDER,
                                training=notes, metrics=metrics, opset=opset)
    recipe = recipe_of(weights)
    inputs, notes["pictures"] = _pictures(recipe)
    notes |= _provenance(weights, recipe, use_ema)
    data = recipe.data
    return export_wholebody(
        network, output, encoding=Encoding(network.codec, data.mean, data.std),
        crop_pad=data.crop_pad, border_value=GREY, training=notes, metrics=metrics, inputs=inputs,
        opset=opset)


def _provenance(weights: SimccWeights, recipe: WholebodyTrainConfig,
                use_ema: bool) -> dict[str, Any]:
    state = weights.state
    return {"config": strict.to_dict(recipe), "iteration": state["iteration"],
            "iterations": state["iterations"], "seed": recipe.trainer.seed,
            "averaged_weights": bool(use_ema and state["average"])}


def _pictures(recipe: WholebodyTrainConfig) -> tuple[np.ndarray | None, str]:
    """Crops of the run's validation (or training) people, normalised, and where they are from.

    None where the data are no longer there: a model can be exported without them.
    """
    entry = (*recipe.data.val, *recipe.data.train)[0]
    try:
        people = person_set(recipe.data, open_people([entry], check_images=False))
        rows = np.linspace(0, len(people) - 1, PICTURES).astype(int)
        return np.concatenate([people[int(row)].to("cpu").images.numpy() for row in rows]), entry
    except (ValueError, OSError) as error:
        return None, f"none ({type(error).__name__} in {entry})"
