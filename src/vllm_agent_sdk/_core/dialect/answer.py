"""What turns are made of: the arguments of calls, and the tool that an answer is given with.

Where every turn is a call (`required`), the answer is one too.
"""

from __future__ import annotations

from typing import Any

from vllm_agent_sdk._core.run.state import ANSWER_TOOL
from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types.messages import ToolCall
from vllm_agent_sdk.types.tools import ToolSpec

__all__ = ["answer_text", "answer_tool", "arguments_schema", "is_wrapped", "moved", "refers"]

Schema = dict[str, Any]

_DATA = frozenset({"const", "default", "enum", "examples"})


def arguments_schema(tool: ToolSpec) -> Schema:
    """Give the schema of a tool's arguments, which are always an object."""
    parameters = tool.parameters
    return parameters if "type" in parameters else {"type": "object", **parameters}


def answer_tool(output: Schema | None) -> ToolSpec:
    """Give the answer's tool.

    Args:
        output: The JSON Schema of the answer; `None` for text. One that is no object's stands
            below `answer`, because the arguments of a call are an object.
    """
    if output is None:
        parameters = _wrapped({"type": "string"})
    else:
        parameters = _wrapped(output) if is_wrapped(output) else output
    description = "Give the final answer, once everything that it needs is known."
    return ToolSpec(name=ANSWER_TOOL, description=description, parameters=parameters)


def is_wrapped(output: Schema | None) -> bool:
    """True if the answer stands below `answer` in the call's arguments."""
    return output is None or output.get("type") != "object"


def answer_text(call: ToolCall, output: Schema | None) -> str:
    """Give the answer that a call of the tool holds: text, or where it is typed JSON."""
    if call.arguments is None or not is_wrapped(output):
        return call.arguments_json
    answer = call.arguments.get("answer")
    if output is None and isinstance(answer, str):
        return answer
    return _codec.encode(answer).decode()


def _wrapped(schema: Schema) -> Schema:
    outer: Schema = {"type": "object", "properties": {"answer": schema}}
    outer |= {"required": ["answer"], "additionalProperties": False}
    if refers(schema):
        outer["properties"] = {"answer": {"$ref": "#/$defs/answer"}}
        outer["$defs"] = {"answer": moved(schema, "#/$defs/answer")}
    return outer


def refers(schema: Any) -> bool:
    """True if a schema refers to its own parts."""
    if isinstance(schema, dict):
        ref = schema.get("$ref")
        if isinstance(ref, str) and ref.startswith("#"):
            return True
        return any(refers(item) for key, item in schema.items() if key not in _DATA)
    return isinstance(schema, list) and any(refers(item) for item in schema)


def moved(schema: Any, place: str) -> Any:
    """Copy a schema whose references are right where it stands at `place` (`#/$defs/NAME`).

    Grammars follow references into `$defs`, not into lists (xgrammar 0.2.8).
    """
    if isinstance(schema, list):
        return [moved(item, place) for item in schema]
    if not isinstance(schema, dict):
        return schema
    copy = {
        key: item if key in _DATA else moved(item, place)
        for key, item in schema.items()
        if key not in {"$schema", "$id"} or not isinstance(item, str)
    }
    ref = copy.get("$ref")
    if isinstance(ref, str) and ref.startswith("#"):
        copy["$ref"] = place + ref[1:]
    return copy
