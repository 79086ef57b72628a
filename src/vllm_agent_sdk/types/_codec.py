"""The one place where JSON becomes values and values become JSON.

msgspec's traps are mapped here once:

1. it drops unknown keys: `unknown_keys` finds them again in the bytes;
2. it raises `RecursionError` on deep nesting and `UnicodeDecodeError` on bad UTF-8:
   both are `ProtocolError` when the bytes came from a server;
3. it raises `UnicodeEncodeError` on lone surrogates: `UsageError` when the caller gave them;
4. it writes NaN and infinities as `null` in silence: `encode_checked` refuses them;
5. it refuses unions of several object types: such types are decoded member by member;
6. it refuses `null` for a field that has another default: `null` equals absent, also there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec

from vllm_agent_sdk.errors import ProtocolError, UsageError

__all__ = [
    "NULL",
    "Fact",
    "Raw",
    "Record",
    "canonical",
    "decode",
    "decode_or_none",
    "decoder",
    "encode",
    "encode_body",
    "encode_checked",
    "encoder",
    "own_decoder",
    "replace",
    "to_builtins",
    "unknown_keys",
]

T = TypeVar("T")

#: Gives a copy of a struct with some fields changed.
replace = msgspec.structs.replace
#: JSON that is already bytes: it is written as it is.
Raw = msgspec.Raw
NULL = Raw(b"null")


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of small frozen values (options, facts); fields are keywords."""


class Fact(msgspec.Struct, frozen=True, gc=False):
    """Base of small frozen values that are made often; fields are positional."""


_encoder = msgspec.json.Encoder()
_canonical = msgspec.json.Encoder(order="sorted")
_UNWRITABLE = (UnicodeEncodeError, RecursionError, TypeError, ValueError, OverflowError)


def encode(value: object) -> bytes:
    """Write a value as compact JSON, its fields in their declared order.

    Raises:
        UsageError: The value holds text with lone surrogates, or something JSON has no form for.
    """
    try:
        return _encoder.encode(value)
    except _UNWRITABLE as cause:
        raise _unwritable(cause) from cause


def encoder(hook: Callable[[Any], Any]) -> Callable[[object], bytes]:
    """Build an encoder of compact JSON that raises as `encode` does.

    Args:
        hook: Gives what is written in place of a value that JSON has no form for, or raises
            `TypeError`.
    """
    write = msgspec.json.Encoder(enc_hook=hook).encode

    def encode_hooked(value: object) -> bytes:
        try:
            return write(value)
        except _UNWRITABLE as cause:
            raise _unwritable(cause) from cause

    return encode_hooked


def _unwritable(cause: Exception) -> UsageError:
    if isinstance(cause, UnicodeEncodeError):
        return UsageError(
            "The text holds a lone surrogate (half of a character) at position "
            f"{cause.start}: it cannot be written as UTF-8. Decode input with errors='replace'."
        )
    if isinstance(cause, RecursionError):
        return UsageError("The value is nested too deeply (or contains itself) for JSON.")
    return UsageError(f"The value cannot be written as JSON: {cause}.")


def encode_checked(value: object) -> bytes:
    """Write a caller's value as JSON, and refuse NaN and infinities, which JSON does not have."""
    encoded = encode(value)
    _refuse_not_finite(value, encoded)
    return encoded


def encode_body(body: Mapping[str, Any]) -> bytes:
    """Write a request as `encode_checked` does; what is `Raw` in it was checked before.

    A conversation that is bytes already is not searched anew with each turn.
    """
    encoded = encode(body)
    rest = {name: value for name, value in body.items() if not _written(value)}
    _refuse_not_finite(rest, encoded if len(rest) == len(body) else encode(rest))
    return encoded


def _written(value: object) -> bool:
    return type(value) is list and set(map(type, value)) == {Raw}


def _refuse_not_finite(value: object, encoded: bytes) -> None:
    # They are written as null: only where there is one is it worth a walk through the value.
    if b"null" in encoded:
        try:
            path = _not_finite(value, "$")
        except RecursionError:
            path = None  # deeper than this walk goes, and yet written: what it holds stays as it is
        if path is not None:
            raise UsageError(f"{path} is NaN or infinite: JSON has no such number.")


def canonical(value: object) -> bytes:
    """Write a value as JSON with its keys in order, so that equal values give equal bytes."""
    return _canonical.encode(value)


#: Types without a number that JSON does not have.
_FINITE = frozenset({str, Raw, bool, int, type(None)})


def _not_finite(value: object, path: str) -> str | None:
    kind = type(value)
    if kind in _FINITE:
        return None
    if isinstance(value, float):
        return None if math.isfinite(value) else path
    if kind is dict or (kind is not list and isinstance(value, Mapping)):
        for key, item in value.items():  # type: ignore[attr-defined]
            if (found := _not_finite(item, "")) is not None:
                return f"{path}.{key}{found}"
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            if type(item) is Raw:
                continue
            if (found := _not_finite(item, "")) is not None:
                return f"{path}[{index}]{found}"
    return None


def decoder(type_: type[T]) -> Callable[[bytes], T]:
    """Build a decoder of bytes that a server sent; it raises `ProtocolError` and nothing else."""
    decode_bytes: Callable[[bytes], T] | None = None

    def decode_sent(data: bytes) -> T:
        nonlocal decode_bytes
        if decode_bytes is None:  # built at the first use: importing stays quick
            decode_bytes = msgspec.json.Decoder(type_, strict=False).decode
        try:
            try:
                return decode_bytes(data)
            except msgspec.ValidationError:
                # Rare: some proxies write null for everything they don't know.
                if b"null" not in data:
                    raise
                return msgspec.convert(_without_nulls(_decode(data)), type_, strict=False)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, ValueError) as cause:
            raise ProtocolError(_describe(cause, data)) from cause

    return decode_sent


_decode = msgspec.json.Decoder().decode


def own_decoder(type_: Any, hook: Callable[[Any, Any], Any]) -> Callable[[bytes | Raw], Any]:
    """Build a decoder of what `encoder` wrote: nothing is converted. It raises `ProtocolError`.

    Args:
        type_: What it gives.
        hook: Makes a value of a type that JSON has no form for, given the type and what stands
            there; it raises `ValueError`, `TypeError` or `LookupError` for what cannot.
    """
    read = msgspec.json.Decoder(type_, dec_hook=hook).decode

    def decode_own(data: bytes | Raw) -> Any:
        try:
            return read(data)
        except (msgspec.DecodeError, RecursionError, ValueError, LookupError) as cause:
            raise ProtocolError(f"This is not what was written: {cause}.") from cause

    return decode_own


def _without_nulls(value: Any) -> Any:
    """Leave out the keys of objects whose value is null."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def _describe(cause: Exception, data: bytes) -> str:
    shown = data[:200].decode("utf-8", "replace")
    more = "…" if len(data) > 200 else ""
    if isinstance(cause, msgspec.ValidationError):
        return f"The server sent JSON of another shape than expected ({cause}): {shown}{more}"
    if isinstance(cause, RecursionError):
        return f"The server sent JSON that is nested too deeply: {shown}{more}"
    return f"The server sent something that is not JSON ({cause}): {shown!r}{more}"


_decode_any = decoder(object)


def decode(data: bytes) -> Any:
    """Read JSON that a server sent into builtins. Raises `ProtocolError`."""
    return _decode_any(data)


def decode_or_none(data: bytes) -> Any:
    """Read JSON into builtins, or give `None` for bytes that are no JSON."""
    try:
        return _decode_any(data)
    except ProtocolError:
        return None


def to_builtins(value: object) -> Any:
    """Turn structs into dicts and lists, as they would be written."""
    return msgspec.to_builtins(value)


def unknown_keys(raw: object, typed: object) -> Any:
    """Find what `typed` lost of `raw`: the keys its structs don't know, at any level.

    Args:
        raw: The JSON in builtins.
        typed: What was decoded from the same JSON.

    Returns:
        A dict of the unknown keys, with nested dicts (and lists of them by position) where they
        were found deeper; empty when nothing was lost.
    """
    if isinstance(raw, dict) and isinstance(typed, msgspec.Struct):
        fields = {field.encode_name: field.name for field in msgspec.structs.fields(typed)}
        lost: dict[str, Any] = {}
        for key, value in raw.items():
            if key not in fields:
                lost[key] = value
            elif inner := unknown_keys(value, getattr(typed, fields[key])):
                lost[key] = inner
        return lost
    if isinstance(raw, list) and isinstance(typed, (list, tuple)):
        found = [unknown_keys(a, b) for a, b in zip(raw, typed, strict=False)]
        return found if any(found) else {}
    return {}
