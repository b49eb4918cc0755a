"""Metadata of an ONNX file, read without onnx or onnxruntime.

Walks the top level of the protobuf wire format (protobuf.dev/programming-guides/encoding) and
skips the weights by their length, so that reading the metadata of a large model costs a few reads,
and a truncated file is found at once.
"""

from __future__ import annotations

import io
from typing import BinaryIO

_MODEL_METADATA_FIELD = 14  # onnx.proto: repeated StringStringEntryProto metadata_props
_MAX_METADATA_BYTES = 64 << 20


class WireError(Exception):
    """The bytes are no whole ONNX file; the message says what is wrong, without the path."""


def metadata_entries(file: BinaryIO, size: int) -> dict[str, str]:
    """Key and value of every metadata entry of the ModelProto that fills `file`, `size` bytes.

    Raises WireError.
    """
    entries: dict[str, str] = {}
    seen_graph = False
    while file.tell() < size:
        key = _varint(file)
        number, wire_type = key >> 3, key & 7
        if number == 0 or wire_type not in (0, 1, 2, 5):
            raise WireError("not an ONNX file, or a damaged one")
        if wire_type == 0:
            _varint(file)
            continue
        length = {1: 8, 5: 4}.get(wire_type)
        if length is None:
            length = _varint(file)
        end = file.tell() + length
        if end > size:
            raise WireError(
                f"the file is truncated: {size} bytes, but its contents go on to {end}"
            )
        if wire_type == 2 and number == _MODEL_METADATA_FIELD:
            if length > _MAX_METADATA_BYTES:
                raise WireError(f"a metadata entry of {length} bytes is not plausible")
            name, value = _string_pair(file.read(length))
            entries[name] = value
        seen_graph = seen_graph or (wire_type == 2 and number == 7)
        file.seek(end)
    if size == 0:
        raise WireError("the file is empty")
    if not seen_graph:
        raise WireError("the file has no graph: it is truncated, or not an ONNX model")
    return entries


def _string_pair(payload: bytes) -> tuple[str, str]:
    """StringStringEntryProto: key is field 1, value field 2."""
    file, texts = io.BytesIO(payload), {1: "", 2: ""}
    while file.tell() < len(payload):
        key = _varint(file)
        if key & 7 != 2:
            raise WireError("a metadata entry is damaged")
        length = _varint(file)
        data = file.read(length)
        if len(data) != length:
            raise WireError("a metadata entry is damaged")
        try:
            texts[key >> 3] = data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise WireError(f"a metadata entry is not UTF-8: {error}") from error
    return texts[1], texts[2]


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise WireError("the file is truncated inside a number")
        value |= (byte[0] & 0x7F) << shift
        if not byte[0] & 0x80:
            return value
    raise WireError("not an ONNX file, or a damaged one")
