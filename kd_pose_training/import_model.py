"""Published ONNX files made ready for the nodes: recognised, checked, given a manifest.

The copy holds every byte of the source, with the manifest after them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx

from kd_pose.manifest import METADATA_KEY, NetworkManifest, WholebodyManifest, read_manifest
from kd_pose_training.onnx_graph import OnnxFileError, OnnxGraph
from kd_pose_training.recognise import ImportOptions, recognise


@dataclass
class Imported:
    """What was made of a file. reasons: how it was recognised, for people."""

    path: Path
    manifest: NetworkManifest
    reasons: list[str] = field(default_factory=list)


def import_model(source: str | Path, output: str | Path,
                 options: ImportOptions | None = None) -> Imported:
    """Write a copy of a published file with the manifest that the runtime needs.

    The copy appears only after the runtime has opened and run it; an earlier file of that name is
    replaced then, the source never.

    Raises:
        OnnxFileError: names the file and what is wrong with it.
        ValueError: options that make no sense.
    """
    source, output, options = Path(source), Path(output), options or ImportOptions()
    if output.suffix != ".onnx":
        raise OnnxFileError(f"{output}: the file's name must end in .onnx")
    graph = OnnxGraph(source)
    if output.exists() and output.samefile(source):
        raise OnnxFileError(f"{output}: is the source itself; give the copy another name")
    if METADATA_KEY in graph.metadata:
        raise OnnxFileError(f"{source}: already has a manifest ({read_manifest(source).task}); "
                            "the nodes take it as it is")
    try:
        manifest, reasons = recognise(graph, options)
    except ValueError as error:
        raise _named(error, source) from error
    output.parent.mkdir(parents=True, exist_ok=True)
    beside = output.with_name(f".{output.stem}.{os.getpid()}.part.onnx")
    try:
        write_copy(graph, manifest, beside)
        try:
            try_runtime(beside, manifest)
        except ValueError as error:
            raise OnnxFileError(str(error).replace(str(beside), str(source))) from error
        os.replace(beside, output)
    finally:
        beside.unlink(missing_ok=True)
    return Imported(output, manifest, reasons)


def _named(error: ValueError, source: Path) -> ValueError:
    """The error, beginning with the file that it is about."""
    return error if isinstance(error, OnnxFileError) else OnnxFileError(f"{source}: {error}")


def write_copy(graph: OnnxGraph, manifest: NetworkManifest, path: Path) -> None:
    """The source's bytes, then the manifest: fields of a protobuf message may stand in any order.

    Weights that were in files beside the source are taken into the copy.
    """
    entry = onnx.ModelProto()
    entry.metadata_props.add(key=METADATA_KEY, value=manifest.to_json())
    body = graph.model.SerializeToString() if graph.external else graph.path.read_bytes()
    with open(path, "wb") as stream:
        stream.write(body)
        stream.write(entry.SerializeToString())
        stream.flush()
        os.fsync(stream.fileno())
    if read_manifest(path) != manifest:
        raise OnnxFileError(f"{graph.path}: the manifest does not read back as it was written")


def try_runtime(path: Path, manifest: NetworkManifest) -> None:
    """Open and run a file as the nodes do."""
    noise = np.random.default_rng(0).integers(0, 256, (97, 131, 3), dtype=np.uint8)
    if isinstance(manifest, WholebodyManifest):
        from kd_pose.simcc_network import SimccNetwork
        network = SimccNetwork(path, "wholebody", backend="onnxruntime", device="cpu", threads=1)
        network.warm_up(1, batch=2)
        network.close()
        return
    from kd_pose.person_detector import open_person_detector
    detector = open_person_detector(path, backend="onnxruntime", device="cpu", threads=1)
    detector.detect(noise)
    detector.close()
