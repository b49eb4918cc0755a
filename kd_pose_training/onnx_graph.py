"""What an ONNX file of unknown origin says of itself, read from its graph and by running it.

Nothing here knows what the file is for. Files that are no whole ONNX model (a truncated download,
an archive, a web page under the model's name) are refused by what they are.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
from onnx import external_data_helper, numpy_helper

from kd_pose.backends import open_session
from kd_pose.onnx_metadata import WireError, metadata_entries

# Operators whose result is a size or a new array: what follows is no picture any more.
NO_DATA = frozenset({"Shape", "Size", "ConstantOfShape", "Range"})
ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Div", "BatchNormalization", "InstanceNormalization",
                        "LayerNormalization", "Normalizer"})


class OnnxFileError(ValueError):
    """A file that cannot be used; the message begins with its path."""


@dataclass(frozen=True)
class Port:
    """An input or output. shape: -1 where it is open, None where nothing is said of it."""

    name: str
    shape: tuple[int, ...] | None
    dtype: str

    def __str__(self) -> str:
        sizes = "?" if self.shape is None else ", ".join(
            "any" if size < 0 else str(size) for size in self.shape)
        return f"{self.name} ({sizes})"


class OnnxGraph:
    """A whole ONNX model in memory, weights included also where they were in files beside it.

    path, model: what it is. metadata: its texts. external: names of the files beside it.

    Raises:
        OnnxFileError: missing, not ONNX, truncated, or weights missing.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        _refuse_other_kinds(self.path)
        with open(self.path, "rb") as stream:
            try:
                self.metadata = metadata_entries(stream, self.path.stat().st_size)
            except WireError as error:
                raise OnnxFileError(f"{self.path}: {error}") from error
        try:
            self.model = onnx.load(str(self.path), load_external_data=False)
        except Exception as error:  # protobuf's errors have no common base
            raise OnnxFileError(f"{self.path}: is not an ONNX model: {error}") from error
        self.external = self._load_external()

    def _load_external(self) -> tuple[str, ...]:
        tensors = [tensor for tensor in external_data_helper._get_all_tensors(self.model)
                   if external_data_helper.uses_external_data(tensor)]
        names = sorted({entry.value for tensor in tensors for entry in tensor.external_data
                        if entry.key == "location"})
        missing = [name for name in names if not (self.path.parent / name).is_file()]
        if missing:
            raise OnnxFileError(
                f"{self.path}: its weights are in {', '.join(missing)}, which is not beside it in "
                f"{self.path.parent.resolve()}; download that file too, under the same name")
        if names:
            try:
                external_data_helper.load_external_data_for_model(self.model,
                                                                  str(self.path.parent))
            except Exception as error:  # a file that is too short, too long, or a link
                raise OnnxFileError(f"{self.path}: the weights in {', '.join(names)} cannot be "
                                    f"read: {error}") from error
        return tuple(names)

    @cached_property
    def opset(self) -> int:
        """Version of the standard operators."""
        return max((item.version for item in self.model.opset_import if item.domain in ("",
                    "ai.onnx")), default=0)

    @cached_property
    def producer(self) -> str:
        """Program that wrote the file, with its version."""
        return f"{self.model.producer_name} {self.model.producer_version}".strip() or "unknown"

    @cached_property
    def operators(self) -> frozenset[str]:
        """Names of the operators in the graph, not in its branches."""
        return frozenset(node.op_type for node in self.model.graph.node)

    @cached_property
    def foreign_operators(self) -> tuple[str, ...]:
        """Operators outside of the ONNX standard, as domain:name."""
        return tuple(sorted({f"{node.domain}:{node.op_type}" for node in self.model.graph.node
                             if node.domain not in ("", "ai.onnx", "ai.onnx.ml",
                                                    "com.microsoft")}))

    @cached_property
    def inputs(self) -> tuple[Port, ...]:
        """What has to be given; old files list their weights among the inputs as well."""
        own = {tensor.name for tensor in self.model.graph.initializer}
        return tuple(_port(item) for item in self.model.graph.input if item.name not in own)

    @cached_property
    def outputs(self) -> tuple[Port, ...]:
        return tuple(_port(item) for item in self.model.graph.output)

    def first_operators(self, name: str) -> tuple[list[str], int | None]:
        """Operators that an input goes through up to its first convolution, in their order, and
        the channels that this convolution looks at; None where there is no such."""
        reached, passed = {name}, []
        for node in self.model.graph.node:
            if not reached.intersection(node.input) or node.op_type in NO_DATA:
                continue
            if node.op_type == "Conv":
                weights = self.constant(node.input[1])
                groups = next((item.i for item in node.attribute if item.name == "group"), 1)
                return passed, None if weights is None else weights.shape[1] * groups
            passed.append(node.op_type)
            reached.update(node.output)
        return passed, None

    def constant(self, name: str) -> np.ndarray | None:
        """Value of an initializer or Constant, also behind Identity; None for anything else."""
        for tensor in self.model.graph.initializer:
            if tensor.name == name:
                return numpy_helper.to_array(tensor)
        node = self.producer_of(name)
        if node is None:
            return None
        if node.op_type == "Identity":
            return self.constant(node.input[0])
        value = next((item for item in node.attribute if item.name.startswith("value")), None)
        if node.op_type != "Constant" or value is None:
            return None
        if value.name == "value":
            return numpy_helper.to_array(value.t)
        return np.asarray(onnx.helper.get_attribute_value(value))

    def producer_of(self, name: str) -> onnx.NodeProto | None:
        """The node that computes a value."""
        return next((node for node in self.model.graph.node if name in node.output), None)

    def run(self, batches: Sequence[np.ndarray]) -> list[dict[str, np.ndarray]]:
        """Answers of the file, by the runtime's engine on the CPU, to inputs of its one port.

        Raises:
            OnnxFileError: with what the engine says where it cannot load or run it.
        """
        if self.foreign_operators:
            raise OnnxFileError(
                f"{self.path}: uses operators outside of ONNX ({', '.join(self.foreign_operators)}"
                "), so it was exported for another engine; export it for ONNX Runtime")
        try:
            session = open_session(self.path, "onnxruntime", "cpu", threads=1)
        except ValueError as error:
            raise OnnxFileError(str(error)) from error
        try:
            return [session.run({self.inputs[0].name: batch}) for batch in batches]
        except Exception as error:  # the engine's errors have no common base
            shapes = " and ".join(str(batch.shape) for batch in batches)
            raise OnnxFileError(f"{self.path}: does not run on inputs of {shapes}: "
                                f"{error}") from error
        finally:
            session.close()


def _port(item: onnx.ValueInfoProto) -> Port:
    kind = item.type.tensor_type
    shape = None
    if kind.HasField("shape"):
        shape = tuple(dim.dim_value if dim.dim_value > 0 else -1 for dim in kind.shape.dim)
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name
    except KeyError:
        dtype = "unknown"
    return Port(item.name, shape, dtype)


def _refuse_other_kinds(path: Path) -> None:
    """Name what people have in hand when a download went wrong."""
    if not path.is_file():
        raise OnnxFileError(f"{path}: no such file")
    with open(path, "rb") as stream:
        start = stream.read(512)
    text = start.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise OnnxFileError(f"{path}: is a web page, not a model: the download gave a page with a "
                            "question or an error instead of the file")
    if start.startswith(b"version https://git-lfs"):
        raise OnnxFileError(f"{path}: is a Git LFS pointer, not the model itself; fetch the file "
                            "with git lfs pull, or through the site's download link")
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        inside = [name for name in names if name.endswith(".onnx")]
        if inside:
            raise OnnxFileError(f"{path}: is an archive; unpack it and import {inside[0]}")
        if any(name.endswith("data.pkl") for name in names):
            raise OnnxFileError(
                f"{path}: is a PyTorch checkpoint, not an ONNX file; checkpoints of RTMPose and "
                "DWPose can be the weights of a training, see docs/wholebody.md")
        raise OnnxFileError(f"{path}: is an archive without an ONNX file")
