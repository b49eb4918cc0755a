"""Weights of RTMPose and DWPose as MMPose saves them, loaded by key into a :class:`SimccNet`.

Understood are bare state dicts, whole training checkpoints, those of a distiller (keys that begin
with ``student.`` or ``teacher.``) and those with averaged weights. Such files hold objects of
MMPose's own classes; nothing of them is executed: all but tensors and plain data becomes inert.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import torch
from torch import Tensor

from kd_pose_training.engine.checkpoint import CheckpointError, check_finite
from kd_pose_training.models.simcc_net import SimccNet

# Where backbone and head come from. In the second stage of DWPose the student's own backbone is
# never trained: the network is the teacher's backbone with the student's head.
PARTS = {"plain": ("", ""), "student": ("student.", "student."),
         "teacher": ("teacher.", "teacher."), "second_stage": ("teacher.", "student.")}
# Globals that tensors and plain data need; torch resolves storages by itself.
_ALLOWED = {("collections", "OrderedDict"), ("torch._utils", "_rebuild_tensor_v2"),
            ("torch._utils", "_rebuild_parameter"), ("torch", "Size"), ("torch", "device")}


def load_mmpose_checkpoint(network: SimccNet, path: str | Path, *, part: str | None = None,
                           weights: Literal["averaged", "last"] = "averaged",
                           backbone_only: bool = False) -> None:
    """Fill `network` with the weights of a file; nothing changes where they do not fit.

    Args:
        part: one of ``PARTS``; None: what the file holds, where that is clear.
        weights: MMEngine saves averaged weights in place of the last ones, and those beside them;
            a file without both has one kind only.
        backbone_only: leave the head as it is, such as for a pretrained backbone.

    Raises:
        CheckpointError: missing, damaged or no checkpoint; no weights for `part` or more than one
            candidate; another size, input size or number of keypoints: the message names the first
            key that differs and both shapes; or values that are not finite.
    """
    found = read_mmpose_weights(path, part=part, weights=weights, backbone_only=backbone_only)
    fill(network, found, path, backbone_only=backbone_only)


def read_mmpose_weights(path: str | Path, *, part: str | None = None,
                        weights: Literal["averaged", "last"] = "averaged",
                        backbone_only: bool = False) -> dict[str, Tensor]:
    """The weights of :func:`load_mmpose_checkpoint` by the network's own keys.

    Raises:
        CheckpointError: as there, but for what depends on the network.
    """
    path = Path(path)
    state = _state_dict(path, _read(path), weights)
    part = part if part is not None else _only_part(path, state)
    if part not in PARTS:
        raise CheckpointError(f"{path}: part is {part!r}; allowed: {', '.join(PARTS)}")
    return _chosen(state, part, backbone_only)


def fill(network: SimccNet, found: Mapping[str, Tensor], path: str | Path, *,
         backbone_only: bool = False) -> None:
    """Load weights by key; nothing changes where they do not fit.

    Raises:
        CheckpointError: names the first key that differs and both shapes, or the first with values
            that are not finite.
    """
    own = {key: value for key, value in network.state_dict().items()
           if key.startswith("backbone.") or not backbone_only}
    _check(Path(path), found, own)
    check_finite(found, path)
    network.load_state_dict({**network.state_dict(), **found}, strict=True)


def _check(path: Path, found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    for key, value in own.items():
        if key not in found:
            if key.endswith("num_batches_tracked"):
                continue  # old files have none; it is not used
            raise CheckpointError(f"{path}: has no {key}; the network wants "
                                  f"{tuple(value.shape)} there")
        if found[key].shape != value.shape:
            raise CheckpointError(
                f"{path}: {key} has the shape {tuple(found[key].shape)} in the file and "
                f"{tuple(value.shape)} in the network: another size, input size or number of "
                "keypoints")
    for key in found:
        if key not in own:
            raise CheckpointError(f"{path}: has {key} {tuple(found[key].shape)}, which the "
                                  "network does not have: it is larger or of another kind")


def _chosen(state: Mapping[str, Tensor], part: str, backbone_only: bool) -> dict[str, Tensor]:
    """Weights of one part under the network's own keys; losses have no weights of use here."""
    found = {}
    for module, prefix in zip(("backbone.", "head."), PARTS[part]):
        if module == "head." and backbone_only:
            continue
        wanted = prefix + module
        for key, value in state.items():
            if key.startswith(wanted) and not key.startswith(wanted + "loss_module."):
                found[key[len(prefix):]] = value
    return found


def _only_part(path: Path, state: Mapping[str, Tensor]) -> str:
    held = [name for name in ("plain", "student", "teacher")
            if any(key.startswith(PARTS[name][0] + "backbone.") for key in state)]
    if len(held) != 1:
        what = (f"weights of {' and '.join(held)}; say which with part (after the second stage "
                "it is second_stage)" if held else "no key that begins with backbone.")
        raise CheckpointError(f"{path}: has {what}")
    return held[0]


def _state_dict(path: Path, content: Any, weights: str) -> dict[str, Tensor]:
    """The tensors of a file under their keys, without what wrappers put before them."""
    if weights not in ("averaged", "last"):
        raise CheckpointError(f"{path}: weights is {weights!r}; allowed: averaged, last")
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, no checkpoint")
    key = "state_dict"
    if weights == "last" and "ema_state_dict" in content:  # MMEngine swaps the two when it saves
        key = "ema_state_dict"
    state = content.get(key, content)
    if not isinstance(state, Mapping):
        raise CheckpointError(f"{path}: key {key!r} must hold weights by name, holds a "
                              f"{type(state).__name__}")
    tensors = {key: value for key, value in state.items()
               if isinstance(key, str) and isinstance(value, Tensor)}
    if not tensors:
        raise CheckpointError(f"{path}: holds no tensors")
    return {key.removeprefix("module."): value for key, value in tensors.items()}


class _Inert:
    """Stands for any object that is not wanted; takes whatever a pickle does to it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> _Inert:
        return self

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    append = extend = add = update = __call__


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return super().find_class(module, name)
        return _Inert


def _load(stream: Any, **options: Any) -> Any:
    return _Unpickler(stream, **options).load()


_INERT_PICKLE = SimpleNamespace(Unpickler=_Unpickler, load=_load, __name__="inert pickle")


def _read(path: Path) -> Any:
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such checkpoint")
    if path.suffix == ".onnx":
        raise CheckpointError(f"{path}: is an exported model, whose weights cannot be taken here; "
                              "allowed: a checkpoint of this project (.pt) or of MMPose (.pth)")
    try:
        return torch.load(path, map_location="cpu", weights_only=False,
                          pickle_module=_INERT_PICKLE)
    except Exception as error:  # torch raises many types for a damaged file
        raise CheckpointError(f"{path}: is damaged or not a checkpoint "
                              f"({type(error).__name__})") from error
