"""Typed output: a type as the constraint that is sent, and a reply as a value of that type.

The server enforces the schema as far as its grammars go; what decides is the check made here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_origin

from vllm_agent_sdk._core.schema.constraints import ended_by_itself, shown
from vllm_agent_sdk._core.schema.grammar import grammar_schema, response_schema, unenforced
from vllm_agent_sdk._core.schema.schema import MismatchError, Validator, type_schema
from vllm_agent_sdk._core.schema.values import Decode, keep
from vllm_agent_sdk.errors import ConstraintIgnoredError, OutputValidationError, ProtocolError
from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types.chat import ChatCompletion

__all__ = ["OutputType"]

Schema = dict[str, Any]

_LONGEST_NAME = 64


@dataclass(frozen=True, slots=True)
class OutputType:
    """What a reply is to be.

    Attributes:
        name: What the schema is called in the request.
        schema: The JSON Schema.
        decode: Makes the value of JSON that matches the schema.
        validator: Checks the JSON.
    """

    name: str
    schema: Schema
    decode: Decode
    validator: Validator

    @classmethod
    def of(cls, response_type: Any) -> OutputType:
        """Take a type, or a JSON Schema as a dict, whose values stay plain JSON.

        Raises:
            SchemaError: The type has no JSON form or cannot be told apart, or the schema is wrong.
        """
        if isinstance(response_type, Mapping):
            schema = dict(response_type)
            validator = Validator(schema, "response_type=")
            validator.check()
            return cls(_name(schema.get("title")), schema, keep, validator)
        schema, decode = type_schema(response_type, "response_type=")
        plain = isinstance(response_type, type) and get_origin(response_type) is None
        name = _name(response_type.__name__ if plain else None)
        return cls(name, schema, decode, Validator(schema, "response_type="))

    def response_format(self) -> dict[str, Any]:
        """Give the request's field, with what the server's grammars enforce of the schema.

        Raises:
            SchemaError: No grammar can be made of the schema; keyword and path are named.
        """
        sent = response_schema(self.schema, "response_type=")
        form = {"name": self.name, "schema": sent, "strict": True}
        return {"type": "json_schema", "json_schema": form}

    def value_of(self, reply: ChatCompletion[Any], body: Mapping[str, Any]) -> Any:
        """Read the first choice of a reply; `None` on a refusal and where there are calls.

        Raises:
            OutputValidationError: The reply was cut, or does not match.
            ConstraintIgnoredError: It ended by itself and is no JSON at all.
        """
        choice = reply.choices[0] if reply.choices else None
        if choice is not None and (choice.message.refusal or reply.tool_calls):
            return None
        reason = reply.finish_reason
        if reason == "length":
            raise OutputValidationError(
                "The reply was cut at its token limit before it was a whole value; raise "
                "max_tokens=, or bound the type's texts and lists.",
                finish_reason=reason,
            )
        text = reply.text
        try:
            value = _codec.decode(text.encode("utf-8", "surrogatepass"))
        except ProtocolError as cause:
            deep = isinstance(cause.__cause__, RecursionError)
            thought = not text.strip() and reply.reasoning
            if choice is None or deep or thought or not ended_by_itself(choice, body):
                what = "is nested too deeply" if deep else "holds no whole JSON value"
                why = ": all of it is reasoning" if thought else shown(text)
                raise OutputValidationError(
                    f"The reply (finish_reason {reason!r}) {what}{why}.", finish_reason=reason
                ) from cause
            raise ConstraintIgnoredError(
                "The server did not apply the schema: the reply is not JSON at all"
                f"{shown(text)}. Is its structured output switched off?"
            ) from cause
        return self._checked(value, reason)

    def value_of_json(self, data: bytes) -> Any:
        """Read the value from JSON that was found valid before.

        Raises:
            OutputValidationError: It does not match (the type has changed since).
        """
        return self._checked(_codec.decode(data), "stop")

    def _checked(self, value: Any, reason: str | None) -> Any:
        problems = self.validator.errors(value)
        failure: Exception | None = None
        if not problems:
            try:
                return self.decode(value, "")
            except MismatchError as cause:
                problems, failure = [str(cause)], cause
            except (TypeError, ValueError) as error:  # a class of the caller's refuses it
                problems, failure = [f"{self.name}: {error}"], error
        loose = unenforced(grammar_schema(self.schema, "response_type="))
        hint = f" Grammars do not enforce {', '.join(loose)}." if loose else ""
        raise OutputValidationError(
            f"The reply does not match its type: {'; '.join(problems)}.{hint}",
            finish_reason=reason,
            unenforced=loose,
        ) from failure


def _name(said: object) -> str:
    """Make a name the server takes; a type without one is `response`."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", said).strip("_") if isinstance(said, str) else ""
    return name[:_LONGEST_NAME] or "response"
