"""Strict construction of nested dataclasses from plain data (YAML, JSON, the command line).

Every mistake is a ``ValueError`` that names where the data came from, the key path, the value
and what is allowed. Understood field types: ``bool``, ``int``, ``float``, ``str``, ``Path``,
``Literal[...]``, ``Optional[T]``, ``tuple[T, ...]``, ``tuple[T1, T2]``, ``dict[str, T]`` and
dataclasses. Other unions are refused on purpose: a value has one meaning or none.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

T = TypeVar("T")


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names source, key path and value."""


def from_dict(cls: type[T], data: Any, source: str = "configuration", path: str = "") -> T:
    """Build the dataclass ``cls`` from a mapping; keys left out keep their defaults.

    Args:
        cls: a dataclass type.
        data: mapping of field names to plain values (``None`` stands for an empty section).
        source: where the data came from, for messages (a file name).
        path: dotted path of this section inside the source, for messages.

    Raises:
        ConfigError: unknown key, missing key, wrong type, or a check of ``cls`` that failed.
    """
    data = {} if data is None else data
    if not isinstance(data, dict):
        raise _error(source, path, data, f"a section with the keys {_field_names(cls)}")
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    for key in data:
        if key not in fields:
            raise ConfigError(_unknown_key(source, _join(path, str(key)), str(key), list(fields)))
    values = {}
    for name, field in fields.items():
        if name in data:
            values[name] = convert(hints[name], data[name], source, _join(path, name))
        elif (field.default is dataclasses.MISSING
              and field.default_factory is dataclasses.MISSING):
            raise ConfigError(f"{source}: key '{_join(path, name)}' is missing; "
                              f"expected {describe(hints[name])}")
    try:
        return cls(**values)
    except ConfigError:
        raise
    except ValueError as error:  # checks in __post_init__ do not know the source
        where = f"section '{path}'" if path else "configuration"
        raise ConfigError(f"{source}: {where}: {error}") from error


def convert(hint: Any, value: Any, source: str, path: str) -> Any:
    """Turn one plain value into the annotated type ``hint`` or raise :class:`ConfigError`."""
    origin = typing.get_origin(hint)
    if origin is typing.Union or origin is types.UnionType:
        inner = [arg for arg in typing.get_args(hint) if arg is not type(None)]
        if len(inner) != 1 or len(typing.get_args(hint)) != 2:
            raise TypeError(f"{path}: only Optional[T] is supported, not {hint}")
        return None if value is None else convert(inner[0], value, source, path)
    if origin is typing.Literal:
        allowed = typing.get_args(hint)
        if not any(value == item and type(value) is type(item) for item in allowed):
            raise _error(source, path, value, describe(hint))
        return value
    if origin is tuple:
        return _convert_tuple(hint, value, source, path)
    if origin is dict:
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise _error(source, path, value, describe(hint))
        inner = typing.get_args(hint)[1]
        return {k: convert(inner, v, source, _join(path, k)) for k, v in value.items()}
    if dataclasses.is_dataclass(hint):
        return from_dict(hint, value, source, path)
    return _convert_scalar(hint, value, source, path)


def _convert_tuple(hint: Any, value: Any, source: str, path: str) -> tuple:
    args = typing.get_args(hint)
    if not isinstance(value, (list, tuple)):
        raise _error(source, path, value, describe(hint))
    if len(args) == 2 and args[1] is Ellipsis:
        kinds: Sequence[Any] = [args[0]] * len(value)
    elif len(args) == len(value):
        kinds = args
    else:
        raise _error(source, path, value, describe(hint))
    return tuple(convert(kind, item, source, f"{path}[{index}]")
                 for index, (kind, item) in enumerate(zip(kinds, value)))


def _convert_scalar(hint: Any, value: Any, source: str, path: str) -> Any:
    if hint is Any:
        return value
    if hint is bool and isinstance(value, bool):
        return value
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if hint is float and not isinstance(value, bool):
        # YAML 1.1 reads 1e-3 as text, which nobody who writes it means.
        number = _as_float(value)
        if number is not None:
            return number
    if hint is str and isinstance(value, str):
        return value
    if hint is Path and isinstance(value, (str, Path)):
        return Path(value)
    if hint not in (bool, int, float, str, Path):
        raise TypeError(f"{path}: fields of type {hint} are not supported")
    raise _error(source, path, value, describe(hint))


def _as_float(value: Any) -> float | None:
    if not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):  # the latter of whole numbers with hundreds of digits
        return None
    return number if math.isfinite(number) else None


def to_dict(value: Any) -> Any:
    """Plain data (dicts, lists, numbers, strings) of a dataclass; inverse of :func:`from_dict`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_dict(getattr(value, f.name))
                for f in dataclasses.fields(value) if f.init}
    if isinstance(value, dict):
        return {str(key): to_dict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_dict(item) for item in value]
    return str(value) if isinstance(value, Path) else value


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML loader that refuses a key given twice (plain YAML keeps the last one silently)."""


def _unique_mapping(loader: _UniqueKeyLoader, node: yaml.MappingNode, deep: bool = False) -> dict:
    seen = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=deep)
        if isinstance(key, str):
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key '{key}' is given twice", key_node.start_mark)
            seen.add(key)
    return yaml.SafeLoader.construct_mapping(loader, node, deep)


_UniqueKeyLoader.add_constructor(
    yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


def read_yaml(path: str | Path) -> dict:
    """Read a YAML file whose top is a mapping.

    Raises:
        ConfigError: the file is missing, is not YAML, or its top is not a mapping.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not a UTF-8 text file") from error
    try:
        data = yaml.load(text, Loader=_UniqueKeyLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is not valid YAML: {error}") from error
    data = {} if data is None else data
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: the top must be a mapping of keys, not {data!r}")
    return data


def apply_overrides(data: dict, overrides: Sequence[str]) -> dict:
    """Copy of ``data`` with ``a.b=value`` assignments applied; values are read as YAML.

    Unknown keys and wrong types are found afterwards by :func:`from_dict`.
    """
    result = _copy(data)
    for text in overrides:
        key, separator, raw = text.partition("=")
        parts = key.strip().split(".")
        if not separator or not all(parts):
            raise ConfigError(f"--set {text!r}: expected key.path=value")
        try:
            value = yaml.load(raw, Loader=_UniqueKeyLoader)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {text!r}: the value is not valid YAML: {error}") from error
        node = result
        for depth, part in enumerate(parts[:-1]):
            child = node.get(part)
            if child is None:
                child = node[part] = {}
            if not isinstance(child, dict):
                where = ".".join(parts[:depth + 1])
                raise ConfigError(f"--set {text!r}: '{where}' is the value {child!r}, "
                                  "not a section")
            node = child
        node[parts[-1]] = value
    return result


def load(cls: type[T], path: str | Path, overrides: Sequence[str] = ()) -> T:
    """Read ``path`` strictly as the dataclass ``cls``, after ``a.b=c`` overrides."""
    data = apply_overrides(read_yaml(path), overrides)
    source = f"{path} with --set {' '.join(overrides)}" if overrides else str(path)
    return from_dict(cls, data, source)


def save(value: Any, path: str | Path) -> None:
    """Write a dataclass as YAML that :func:`load` reads back to an equal object."""
    text = yaml.safe_dump(to_dict(value), sort_keys=False, default_flow_style=None, width=99)
    Path(path).write_text(text, encoding="utf-8")


def describe(hint: Any) -> str:
    """Readable name of an annotated type, for error messages."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Union or origin is types.UnionType:
        return " or ".join("null" if a is type(None) else describe(a) for a in args)
    if origin is typing.Literal:
        return "one of " + ", ".join(repr(a) for a in args)
    if origin is tuple:
        if len(args) == 2 and args[1] is Ellipsis:
            return f"a list of {describe(args[0])}"
        return "a list [" + ", ".join(describe(a) for a in args) + "]"
    if origin is dict:
        return f"a mapping of names to {describe(args[1])}"
    if dataclasses.is_dataclass(hint):
        return f"a section with the keys {_field_names(hint)}"
    return {bool: "true or false", int: "a whole number", float: "a finite number",
            str: "text", Path: "a path"}.get(hint, str(hint))


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _field_names(cls: Any) -> str:
    return ", ".join(field.name for field in dataclasses.fields(cls) if field.init)


def _unknown_key(source: str, path: str, key: str, allowed: list[str]) -> str:
    close = difflib.get_close_matches(key, allowed, n=1)
    hint = f" (did you mean '{close[0]}'?)" if close else ""
    return f"{source}: unknown key '{path}'{hint}; allowed: {', '.join(allowed)}"


def _error(source: str, path: str, value: Any, expected: str) -> ConfigError:
    return ConfigError(f"{source}: key '{path or '(top)'}' has the value {value!r}; "
                       f"expected {expected}")
