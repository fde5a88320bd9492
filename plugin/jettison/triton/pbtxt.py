"""config.pbtxt both ways: our own readable writer, and the real protocol buffer to read it.

Writing needs no extra, so a repository can be written anywhere; reading goes through protobuf's
text format and Triton's message type, so that it accepts exactly what Triton accepts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from pydantic import ValidationError

from jettison.core.errors import MissingError, RepositoryError
from jettison.core.extras import install_command
from jettison.triton.config import Message, ModelConfig

if TYPE_CHECKING:
    from google.protobuf.message import Message as ProtobufMessage

_ENUMS = frozenset({"data_type", "kind"})
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def write(config: ModelConfig) -> str:
    """The configuration as text, fields in the order of the model, defaults left out."""
    return "\n".join(_lines(config)) + "\n"


def parse(text: str, *, source: str = "config.pbtxt") -> ModelConfig:
    """The configuration in a config.pbtxt.

    Raises:
        RepositoryError: It is no valid ModelConfig, or holds a field that we do not model.
        MissingError: tritonclient is not installed.
    """
    return _validated(read_message(text, source), source)


def read_message(text: str, source: str) -> ProtobufMessage:
    """The configuration as Triton's own message, whatever it holds.

    Raises:
        RepositoryError: It is no valid ModelConfig.
        MissingError: tritonclient is not installed.
    """
    try:
        from google.protobuf import text_format
        from tritonclient.grpc import model_config_pb2
    except ImportError as error:
        raise MissingError(
            f"reading {source}", detail=str(error), fix=f"Run: {install_command('triton')}"
        ) from error
    message: ProtobufMessage = model_config_pb2.ModelConfig()
    try:
        text_format.Parse(text, message)
    except text_format.ParseError as error:
        raise RepositoryError(
            source, detail=f"it is no Triton model configuration: {error}", fix="Correct that line"
        ) from error
    return message


def _validated(message: ProtobufMessage, source: str) -> ModelConfig:
    from google.protobuf import json_format

    fields = json_format.MessageToDict(message, preserving_proto_field_name=True)
    try:
        return ModelConfig.model_validate(fields)
    except ValidationError as error:
        problems = "; ".join(f"{_path(item['loc'])}: {item['msg']}" for item in error.errors())
        raise RepositoryError(
            source, detail=problems, fix="Correct it, or remove the fields that Jettison does not handle"
        ) from error


def _path(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location) or "config"


def _lines(message: Message, indent: str = "") -> Iterator[str]:
    for name, info in type(message).model_fields.items():
        value = getattr(message, name)
        if value != info.default or info.is_required():
            yield from _field(info.alias or name, value, indent)


def _field(name: str, value: object, indent: str) -> Iterator[str]:
    if isinstance(value, Message):
        yield from _block(name, list(_lines(value, indent + "  ")), indent)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            entry = [*_field("key", key, indent + "  "), *_field("value", item, indent + "  ")]
            yield from _block(name, entry, indent)
    elif isinstance(value, tuple) and value and isinstance(value[0], Message):
        for item in value:
            yield from _field(name, item, indent)
    elif isinstance(value, tuple):
        yield f"{indent}{name}: [ {', '.join(_scalar(name, item) for item in value)} ]".replace("[  ]", "[ ]")
    else:
        yield f"{indent}{name}: {_scalar(name, value)}"


def _block(name: str, lines: list[str], indent: str) -> Iterator[str]:
    if not lines:
        yield f"{indent}{name} {{ }}"
        return
    yield f"{indent}{name} {{"
    yield from lines
    yield f"{indent}}}"


def _scalar(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and name not in _ENUMS:
        return f'"{"".join(_escaped(character) for character in value)}"'
    return str(value)


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    return f"\\{ord(character):03o}" if ord(character) < 32 or ord(character) == 127 else character
