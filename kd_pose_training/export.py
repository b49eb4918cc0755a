"""From a checkpoint to the one file a robot needs: an ONNX graph with its manifest inside.

The file appears only after its own outputs, computed by the engine of the runtime, were found to
agree with torch. It is written beside and renamed, so an earlier file survives any failure.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import importlib.metadata
import json
import logging
import os
import platform
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kd_pose.backends import open_session
from kd_pose.manifest import (
    METADATA_KEY,
    DenseManifest,
    Manifest,
    NetworkManifest,
    ObjectManifest,
    ObjectSpec,
    read_manifest,
)
from kd_pose_training.config import TrainConfig, from_dict, split_folder, to_dict
from kd_pose_training.engine.checkpoint import check_finite, find_checkpoint, load_checkpoint
from kd_pose_training.models import build_model

OPSET = 18  # read by onnxruntime 1.14 and later and by TensorRT 10
IR_VERSION = 10  # older engines refuse files that only claim to be newer
# Allowed differences: absolute of what is 0..1, of offsets and logits relative to the largest.
TOLERANCES = {"scores": 1e-4, "offsets": 1e-3, "masks": 1e-4, "codes": 1e-4,
              "simcc_x": 1e-3, "simcc_y": 1e-3}
RELATIVE = ("offsets", "simcc_x", "simcc_y")
PARITY_BATCHES = (1, 3)


class ExportError(ValueError):
    """A network that cannot be exported faithfully; the message names the file."""


class ExportedNetwork(nn.Module):
    """What the file of a vote network computes: scores instead of logits."""

    outputs: tuple[str, ...] = ("scores", "offsets")

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) -> scores (B, N, C), offsets (B, N, C, K, 2)."""
        logits, offsets = self.network(image)
        return logits.sigmoid(), offsets


class ExportedCodeNetwork(ExportedNetwork):
    """What the file of a dense network computes: probabilities instead of logits."""

    outputs = ("masks", "codes")

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) -> masks (B, C, H/2, W/2), codes (B, C, bits, H/2, W/2)."""
        masks, codes = self.network(image)
        return masks.sigmoid(), codes.sigmoid()


class Parity(dict[str, float]):
    """Largest difference of each output between the file and torch, in the units of
    ``TOLERANCES``."""

    @property
    def holds(self) -> bool:
        return all(value <= TOLERANCES[name] for name, value in self.items())

    def __str__(self) -> str:
        return ", ".join(f"{name} by {value:.2g} (allowed {TOLERANCES[name]:g})"
                         for name, value in self.items())


def export(checkpoint: str | Path, output: str | Path, *, use_ema: bool = True,
           score_threshold: float | None = None, metrics: Mapping[str, Any] | None = None,
           inputs: np.ndarray | None = None, opset: int = OPSET) -> Path:
    """Write the network of a checkpoint as an ONNX file with its manifest.

    Args:
        checkpoint: a checkpoint file, or the folder of a run (its best.pt, else its last.pt).
        output: file to write, ending in ``.onnx``; an earlier one is replaced on success only.
        use_ema: take the averaged weights, where the run kept any.
        score_threshold: written to the manifest; None leaves its default.
        metrics: what the model scored, for the manifest.
        inputs: (n, 3, H, W) normalised pictures to compare on, beside random ones; by default a
            few of the run's own data, if they are still there.

    Returns:
        The output's path.

    Raises:
        ExportError: wrong ending, or the file does not compute what torch computes.
        ValueError: the checkpoint cannot be read, or its weights are not finite.
    """
    output, checkpoint = Path(output), find_checkpoint(checkpoint)
    state = load_checkpoint(checkpoint)
    config = from_dict(state["config"], str(checkpoint))
    kind = ExportedCodeNetwork if config.task == "object_codes" else ExportedNetwork
    plain_network = _network(state, config, use_ema)
    check_finite(plain_network.state_dict(), checkpoint)
    network = kind(plain_network).eval()
    note = "given"
    if inputs is None:
        inputs, note = real_inputs(config)
    notes = _provenance(state, checkpoint, use_ema, opset)

    def manifest(parity: Parity) -> ObjectManifest:
        notes["parity"] = {**parity, "pictures": note}
        return _manifest(config, state, notes, metrics or {}, score_threshold)

    return write_verified(network, config.data.input_size, output, manifest, inputs, opset)


def write_verified(network: ExportedNetwork, input_size: tuple[int, int], output: Path,
                   manifest: Callable[[Parity], NetworkManifest],
                   inputs: np.ndarray | None = None, opset: int = OPSET) -> Path:
    """Write a network's file with its manifest, once it was found to compute what torch computes.

    Args:
        network: in eval mode, on the CPU. input_size: (width, height).
        output: file to write, ending in ``.onnx``; an earlier one is replaced on success only.
        manifest: what the file says of itself, given how far it is from torch.
        inputs: (n, 3, H, W) normalised pictures to compare on, beside random ones.

    Raises:
        ExportError: wrong ending, or the file does not compute what torch computes.
    """
    if output.suffix != ".onnx":
        raise ExportError(f"{output}: the file's name must end in .onnx")
    output.parent.mkdir(parents=True, exist_ok=True)
    beside = output.with_name(f".{output.stem}.{os.getpid()}.part.onnx")
    try:
        write_graph(network, input_size, beside, opset)
        parity = measure_parity(network, beside, parity_inputs(input_size, inputs))
        if not parity.holds:
            raise ExportError(
                f"{output}: not written, since the ONNX file does not compute what torch "
                f"computes; they differ in {parity}")
        embed_manifest(beside, manifest(parity))
        os.replace(beside, output)
    finally:
        beside.unlink(missing_ok=True)
    return output


def write_graph(network: ExportedNetwork, input_size: tuple[int, int], path: Path,
                opset: int) -> None:
    """Trace the network and write its graph with a free batch size, weights included.

    Args:
        network: in eval mode. input_size: (width, height), fixed in the file.
    """
    width, height = input_size
    # Two pictures: tracing with one would let the exporter take the batch for a constant.
    example = torch.zeros(2, 3, height, width)
    with _quiet_exporter():
        program = torch.onnx.export(
            network, (example,), dynamo=True, input_names=["image"],
            output_names=list(network.outputs), opset_version=opset, verbose=False,
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=1024)},))
    model = program.model_proto
    model.ir_version = min(model.ir_version, IR_VERSION)
    _drop_debug_notes(model)
    _save(model, path)


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Without the exporter's notes on packages that are not needed and its own old calls."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logger.setLevel(level)


def _drop_debug_notes(model: Any) -> None:
    """Remove the tracer's notes (source lines, local paths) from every node and value."""
    graph = model.graph
    for part in (graph.node, graph.value_info, graph.input, graph.output, graph.initializer):
        for item in part:
            del item.metadata_props[:]
            item.doc_string = ""
    del graph.metadata_props[:]
    model.doc_string = graph.doc_string = ""


def parity_inputs(input_size: tuple[int, int], real: np.ndarray | None) -> list[np.ndarray]:
    """Batches to compare on: noise, and real pictures where there are any."""
    width, height = input_size
    rng = np.random.default_rng(0)
    batches = [rng.standard_normal((count, 3, height, width), dtype=np.float32)
               for count in PARITY_BATCHES]
    if real is not None and len(real):
        for count in PARITY_BATCHES:
            rows = np.arange(count) % len(real)
            batches.append(np.ascontiguousarray(real[rows], dtype=np.float32))
    return batches


@torch.no_grad()
def measure_parity(network: ExportedNetwork, path: Path, batches: Sequence[np.ndarray]) -> Parity:
    """Largest differences of the file's outputs, by the runtime's engine on the CPU, to torch."""
    session = open_session(path, "onnxruntime", "cpu", threads=2)
    parity = Parity(dict.fromkeys(network.outputs, 0.0))
    try:
        for batch in batches:
            expected = network(torch.from_numpy(batch))
            found = session.run({"image": batch})
            for name, value in zip(network.outputs, expected):
                value = value.numpy()
                if found[name].shape != value.shape:
                    raise ExportError(f"{path}: {name} has the shape {found[name].shape}, "
                                      f"torch gives {value.shape}")
                difference = np.abs(found[name] - value).max()
                if name in RELATIVE:
                    difference = difference / max(float(np.abs(value).max()), 1e-6)
                parity[name] = _larger(parity[name], difference)
    finally:
        session.close()
    return parity


def _larger(a: float, b: float) -> float:
    """The maximum, infinite where a number is none: NaN must not pass for agreement."""
    return max(a, float(b)) if np.isfinite(b) else float("inf")


def real_inputs(config: TrainConfig, count: int = 3) -> tuple[np.ndarray | None, str]:
    """A few pictures of the run's validation (or training) data, and where they are from.

    None where the data are no longer there: a model can be exported without them.
    """
    for entry in (*config.data.val, *config.data.train):
        root, split = split_folder(entry)
        if not Path(root).is_dir():
            continue
        try:
            return _samples(config, root, split, count), entry
        except (ValueError, OSError, ImportError) as error:
            return None, f"none ({type(error).__name__} in {entry})"
    return None, "none (the run's data are not here)"


def _samples(config: TrainConfig, root: str, split: str, count: int) -> np.ndarray:
    from kd_pose_training.data.object_dataset import ObjectVoteDataset
    from kd_pose_training.data.person_box_dataset import PersonBoxDataset
    from kd_pose_training.data.splits import holds_people, open_split
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, cache="none"))
    sets = [open_split(root, split, config.data.objects)]
    kind = PersonBoxDataset if holds_people(sets) else ObjectVoteDataset
    samples = kind(sets, config, None, False)  # no cells: only pictures
    chosen = np.linspace(0, len(samples) - 1, count).astype(int)
    return np.concatenate([samples.picture(int(index)).numpy() for index in chosen])


def embed_manifest(path: Path, manifest: NetworkManifest) -> None:
    """Put a manifest into an ONNX file, in place of the one that it may have.

    The file is replaced whole or not at all, and read back by the runtime's own reader.
    """
    import onnx
    path = Path(path)
    model = onnx.load(str(path))
    kept = [entry for entry in model.metadata_props if entry.key != METADATA_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    model.metadata_props.add(key=METADATA_KEY, value=manifest.to_json())
    model.producer_name, _, model.producer_version = manifest.producer.partition(" ")
    beside = path.with_name(f".{path.stem}.{os.getpid()}.manifest.onnx")
    try:
        _save(model, beside)
        if read_manifest(beside) != manifest:
            raise ExportError(f"{path}: the manifest does not read back as it was written")
        if path.exists():
            shutil.copymode(path, beside)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def set_manifest_metrics(path: str | Path, metrics: Mapping[str, Any],
                         covariance_scale: float | None = None,
                         score_threshold: float | None = None) -> NetworkManifest:
    """Note in an exported file what it scored, the calibrated scale of its covariance, which
    only the files of object networks have, and the calibrated threshold of a detector.

    Raises:
        ModelFileError: not a file of this project. ValueError: metrics are not plain data.
    """
    manifest = read_manifest(path)
    changes: dict[str, Any] = {"metrics": {**manifest.metrics, **plain(metrics)}}
    if covariance_scale is not None:
        changes["covariance_scale"] = float(covariance_scale)
    if score_threshold is not None:
        changes["score_threshold"] = float(score_threshold)
    manifest = dataclasses.replace(manifest, **changes)
    embed_manifest(Path(path), manifest)
    return manifest


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON data as it reads back (tuples become lists); NaN and infinity are refused."""
    return json.loads(json.dumps(dict(values), allow_nan=False))


def _save(model: Any, path: Path) -> None:
    data = model.SerializeToString()
    with open(path, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _network(state: Mapping[str, Any], config: TrainConfig, use_ema: bool) -> nn.Module:
    network = build_model(config.model)
    averaged = use_ema and state["average"]
    network.load_state_dict(state["average"]["network"] if averaged else state["network"])
    return network


def _manifest(config: TrainConfig, state: Mapping[str, Any], training: dict,
              metrics: Mapping[str, Any], score_threshold: float | None) -> ObjectManifest:
    data = config.data
    common: dict[str, Any] = dict(
        task=config.task, input_size=data.input_size, mean=data.mean, std=data.std,
        channel_order="rgb", objects=tuple(ObjectSpec(**spec) for spec in state["objects"]),
        crop_pad=data.crop_pad, training=plain(training), metrics=plain(metrics),
        producer=f"kd_pose {package_version()}")
    if score_threshold is not None:
        common["score_threshold"] = score_threshold
    if config.task == "object_codes":
        return DenseManifest(**common, code_tables=tuple(state["code_tables"]),
                             stride=config.model.strides[0])
    return Manifest(**common, strides=config.model.strides,
                    anchor_scale=config.model.anchor_scale,
                    num_keypoints=config.model.num_keypoints,
                    cells_per_instance=data.cells_per_instance)


def _provenance(state: Mapping[str, Any], checkpoint: Path, use_ema: bool,
                opset: int) -> dict[str, Any]:
    config = from_dict(state["config"], str(checkpoint))
    return {
        "config": to_dict(config),
        "checkpoint": checkpoint.name,
        "iteration": state["iteration"],
        "iterations": state["iterations"],
        "seed": config.trainer.seed,
        "averaged_weights": bool(use_ema and state["average"]),
        "parameters": int(sum(value.numel() for value in build_model(config.model).parameters())),
        "opset": opset,
        "versions": {"kd_pose": package_version(), "torch": torch.__version__,
                     "python": platform.python_version()},
        "exported": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def package_version() -> str:
    """Version of the installed package, "0" in a source tree that was not installed."""
    try:
        return importlib.metadata.version("kd_pose")
    except importlib.metadata.PackageNotFoundError:
        return "0"
