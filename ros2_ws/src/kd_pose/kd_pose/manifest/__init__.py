"""What a model says of itself: JSON inside the ONNX file, read without onnx or onnxruntime.

Weights and the numbers needed to use them (input size, mean, std, strides, object boxes, ...) are
one file, so they cannot part. The JSON is in the ONNX metadata (`ModelProto.metadata_props`, field
14) under the key `kd_pose.manifest`. Its `task` tells the network family and with it which class
of `KINDS` it becomes; each family has a file here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from kd_pose.manifest.base import (
    CHANNEL_ORDERS,
    FORMAT_VERSION,
    NetworkManifest,
    check_choice,
)
from kd_pose.manifest.objects import DenseManifest, Manifest, ObjectManifest, ObjectSpec
from kd_pose.manifest.person_detector import PersonDetectorManifest
from kd_pose.manifest.wholebody import WholebodyManifest
from kd_pose.onnx_metadata import WireError, metadata_entries

__all__ = (
    "CHANNEL_ORDERS", "FORMAT_VERSION", "KINDS", "METADATA_KEY", "DenseManifest", "Manifest",
    "ModelFileError", "NetworkManifest", "ObjectManifest", "ObjectSpec", "PersonDetectorManifest",
    "WholebodyManifest", "manifest_from_json", "read_manifest", "require_task",
)

METADATA_KEY = "kd_pose.manifest"
KINDS: tuple[type[NetworkManifest], ...] = (
    Manifest, DenseManifest, WholebodyManifest, PersonDetectorManifest)


class ModelFileError(ValueError):
    """A model file cannot be used; the message begins with its path."""


def manifest_from_json(text: str, source: str = "manifest") -> NetworkManifest:
    """Parse strictly: unknown, missing or wrong keys are errors that begin with `source`."""
    try:
        data = json.loads(text)
    except ValueError as error:
        raise ModelFileError(f"{source}: the manifest is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise ModelFileError(f"{source}: the manifest must be a JSON object")
    version = data.get("format_version")
    if version != FORMAT_VERSION:  # first: other versions may have other keys
        raise ModelFileError(
            f"{source}: the manifest has format version {version!r}, this version of kd_pose "
            f"reads {FORMAT_VERSION}; export the model again or use a matching kd_pose"
        )
    kinds = {task: kind for kind in KINDS for task in kind.TASKS}
    try:
        check_choice("task", data.get("task"), tuple(kinds))
        return kinds[data["task"]].from_data(data)
    except (TypeError, ValueError) as error:
        raise ModelFileError(f"{source}: {error}") from error


def read_manifest(path: str | os.PathLike) -> NetworkManifest:
    """The manifest inside an ONNX file.

    Raises ModelFileError that names the file: missing, not ONNX, truncated, without a manifest,
    of another format version, or inconsistent.
    """
    path = Path(path)
    if path.is_dir():
        raise ModelFileError(f"{path}: is a folder, needed is the .onnx file of a model")
    if not path.is_file():
        raise ModelFileError(f"{path}: no such model file")
    with open(path, "rb") as file:
        try:
            entries = metadata_entries(file, path.stat().st_size)
        except WireError as error:
            raise ModelFileError(f"{path}: {error}") from error
    if METADATA_KEY not in entries:
        raise ModelFileError(
            f"{path}: no {METADATA_KEY!r} in its metadata: it was not exported by kd_pose"
        )
    return manifest_from_json(entries[METADATA_KEY], source=str(path))


def require_task(manifest: NetworkManifest, tasks: Sequence[str], path: str | os.PathLike) -> None:
    """Raise ModelFileError naming the file if the model is for something else than `tasks`."""
    if manifest.task not in tasks:
        needed = " or ".join(repr(task) for task in tasks)
        raise ModelFileError(f"{path}: the model's task is {manifest.task!r}, needed is {needed}")
