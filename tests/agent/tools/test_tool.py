"""`@tool`: what it makes of a function, and what it refuses."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pydantic
import pytest

from vllm_agent_sdk.agent.tools.function import FunctionTool
from vllm_agent_sdk.agent.tools.tool import tool
from vllm_agent_sdk.agent.tools.toolset import check_tools
from vllm_agent_sdk.errors import SchemaError, UsageError
from vllm_agent_sdk.types.messages import ToolCall
from vllm_agent_sdk.types.protocols import Tool
from vllm_agent_sdk.types.tools import RunContext, ToolOutput, ToolSpec

if TYPE_CHECKING:
    from decimal import Decimal as OnlyForTypes

pytestmark = pytest.mark.feature("A-03")

CTX: RunContext[Any] = RunContext(deps={"user": "ada"}, call=ToolCall("call-1", "any"))


@tool
async def get_weather(city: str, unit: Literal["celsius", "fahrenheit"] = "celsius") -> str:
    """Get the current weather of a city.

    Args:
        city: Its name, in English.
        unit: Of the temperature.

    Returns:
        One sentence.
    """
    return f"18 degrees {unit} in {city}"


# ── the three forms ──────────────────────────────────────────────────────────────────────────────


def test_a_bare_decorator_makes_name_description_and_schema_of_the_function() -> None:
    assert get_weather.name == "get_weather"
    assert get_weather.description == "Get the current weather of a city."
    assert get_weather.spec == ToolSpec(
        name="get_weather",
        description="Get the current weather of a city.",
        parameters={
            "type": "object",
            "properties": {
                "city": {"description": "Its name, in English.", "type": "string"},
                "unit": {
                    "description": "Of the temperature.",
                    "type": "string",
                    "enum": ["celsius", "fahrenheit"],
                    "default": "celsius",
                },
            },
            "required": ["city"],
            "additionalProperties": False,
        },
    )
    assert isinstance(get_weather, Tool)
    assert repr(get_weather) == "<tool get_weather(city, unit)>"


async def test_a_decorated_function_stays_callable_as_it_was() -> None:
    assert await get_weather("Paris") == "18 degrees celsius in Paris"
    assert get_weather.__name__ == "get_weather"

    @tool
    def add(a: int, b: int) -> int:
        return a + b

    assert add(1, b=2) == 3
    assert (get_weather.is_async, add.is_async) == (True, False)


def test_options_are_in_the_spec() -> None:
    @tool(
        name="save-file",
        description="Save.",
        idempotent=True,
        destructive=True,
        open_world=False,
        reads_files=("template",),
        edits_files=("path",),
        serial=True,
        timeout=2.5,
        strict=False,
        coerce=False,
    )
    def save(path: str, template: str) -> None:
        """Not seen."""

    spec = save.spec
    assert (spec.name, spec.description) == ("save-file", "Save.")
    assert (spec.idempotent, spec.destructive, spec.open_world) == (True, True, False)
    assert (spec.reads_files, spec.edits_files) == (("template",), ("path",))
    assert (spec.serial, spec.timeout, spec.strict, spec.coerce) == (True, 2.5, False, False)
    assert not spec.read_only
    assert tool(read_only=True)(save.__wrapped__).spec.repeatable  # type: ignore[attr-defined]


async def test_the_claude_form_takes_one_dict_and_its_results() -> None:
    @tool("greet", "Greet a user", {"name": str, "times": int})
    async def greet(args: dict[str, Any]) -> dict[str, Any]:
        return {"content": [{"type": "text", "text": f"Hello, {args['name']}!" * args["times"]}]}

    assert greet.spec.parameters == {
        "type": "object",
        "properties": {"name": {"type": "string"}, "times": {"type": "integer"}},
        "required": ["name", "times"],
        "additionalProperties": False,
    }
    assert await greet({"name": "Ada", "times": 1}) == {
        "content": [{"type": "text", "text": "Hello, Ada!"}]
    }
    output = await greet.invoke({"name": "Ada", "times": "2"}, CTX)
    assert output.content == "Hello, Ada!Hello, Ada!"
    assert output.repairs == ('times: "2" → 2',)


async def test_a_schema_by_hand_goes_with_one_dict_or_with_keywords() -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city"],
    }

    @tool("forecast", "The next days", schema)
    async def one_dict(args: dict[str, Any], ctx: RunContext[Any]) -> str:
        return f"{args} {ctx.call.id}"

    @tool(schema=schema)
    def keywords(city: str, days: int = 3) -> str:
        return f"{city} {days}"

    @tool(schema=schema)
    def anything(**values: Any) -> str:
        return repr(values)

    assert (await one_dict.invoke({"city": "Rome"}, CTX)).content == "{'city': 'Rome'} call-1"
    assert (await keywords.invoke({"city": "Rome"}, CTX)).content == "Rome 3"
    assert (await anything.invoke({"city": "Rome", "x": 1}, CTX)).content == (
        "{'city': 'Rome', 'x': 1}"
    )
    surplus = await keywords.invoke({"city": "Rome", "x": 1}, CTX)
    assert not surplus.executed
    assert "x: is not a known argument" in str(surplus.content)
    assert keywords.spec.parameters == schema


async def test_a_class_as_schema_arrives_as_its_instance() -> None:
    class Trip(pydantic.BaseModel):
        """A trip."""

        goal: str
        days: int = 1

    @tool("plan", "Plan a trip", Trip)
    async def plan(trip: Trip) -> str:
        return f"{type(trip).__name__} {trip.goal} {trip.days}"

    assert plan.spec.parameters["properties"]["goal"] == {"type": "string"}
    assert (await plan.invoke({"goal": "Rome"}, CTX)).content == "Trip Rome 1"
    wrong = await plan.invoke({"days": 1}, CTX)
    assert "goal: is required" in str(wrong.content)


def test_no_arguments_at_all_is_a_schema_too() -> None:
    @tool
    def now() -> str:
        return ""

    @tool("now", "Now", {})
    async def also_now(args: dict[str, Any]) -> str:
        return ""

    empty = {"type": "object", "properties": {}, "additionalProperties": False}
    assert now.spec.parameters == also_now.spec.parameters == empty


# ── what can be a tool ───────────────────────────────────────────────────────────────────────────


class Shop:
    def __init__(self, name: str) -> None:
        self.shop = name

    async def order(self, item: str) -> str:
        """Order something."""
        return f"{item} at {self.shop}"

    def __call__(self, item: str) -> str:
        """Ask for something."""
        return f"{item}?"

    @staticmethod
    def price(item: str) -> int:
        """Say what it costs."""
        return len(item)


async def test_methods_objects_and_partials_are_tools_too() -> None:
    shop = Shop("Corner")
    order = tool(shop.order)
    ask = tool(shop, name="ask")
    price = tool(Shop.price)
    held = tool(functools.partial(Shop.order, shop), name="held")
    assert [t.description for t in (order, ask, price, held)] == [
        "Order something.",
        "Ask for something.",
        "Say what it costs.",
        "Order something.",
    ]
    for each in (order, ask, price, held):
        assert list(each.spec.parameters["properties"]) == ["item"]
    assert (await order.invoke({"item": "tea"}, CTX)).content == "tea at Corner"
    assert (await ask.invoke({"item": "tea"}, CTX)).content == "tea?"
    assert (await price.invoke({"item": "tea"}, CTX)).content == "3"
    assert (await held.invoke({"item": "tea"}, CTX)).content == "tea at Corner"


async def test_a_wrapped_function_shows_what_it_wraps() -> None:
    def logged(fn: Any) -> Any:
        @functools.wraps(fn)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return fn(*args, **kwargs)

        return wrapper

    @tool
    @logged
    async def twice(n: int) -> int:
        """Double it."""
        return 2 * n

    assert twice.spec.parameters["required"] == ["n"]
    assert (await twice.invoke({"n": 2}, CTX)).content == "4"


async def test_types_made_inside_a_function_are_found() -> None:
    @dataclasses.dataclass
    class Order:
        item: str

    @tool
    def place(order: Order, copies: list[Order]) -> str:
        return f"{order.item} {[copy.item for copy in copies]}"

    output = await place.invoke({"order": {"item": "a"}, "copies": [{"item": "b"}]}, CTX)
    assert output.content == "a ['b']"


# ── the context ──────────────────────────────────────────────────────────────────────────────────


async def test_the_context_is_filled_under_any_name_and_never_shown() -> None:
    @tool
    async def first(ctx: RunContext[dict[str, str]], city: str) -> str:
        return f"{city} for {ctx.deps['user']}"

    @tool
    def last(city: str, *, where: Annotated[RunContext | None, "hidden"] = None) -> str:  # type: ignore[type-arg]
        assert where is not None
        return f"{city} in {where.call.id}"

    @tool
    def position(ctx: RunContext[Any], city: str, /) -> str:
        return f"{city} on {ctx.turn}"

    for each in (first, last, position):
        assert list(each.spec.parameters["properties"]) == ["city"]
        assert "RunContext" not in str(each.spec)
    assert (await first.invoke({"city": "Rome"}, CTX)).content == "Rome for ada"
    assert (await last.invoke({"city": "Rome"}, CTX)).content == "Rome in call-1"
    assert (await position.invoke({"city": "Rome"}, CTX)).content == "Rome on 1"


async def test_a_context_whose_deps_are_imported_for_type_checking_only_is_known() -> None:
    @tool
    def spend(amount: int, ctx: RunContext[OnlyForTypes]) -> str:
        return f"{amount} {ctx.call.id}"

    assert (await spend.invoke({"amount": 1}, CTX)).content == "1 call-1"


async def test_the_model_cannot_fill_the_context() -> None:
    @tool
    def whoami(ctx: RunContext[Any]) -> str:
        return str(ctx.deps["user"])

    output = await whoami.invoke({"ctx": {"deps": {"user": "eve"}}}, CTX)
    assert not output.executed
    assert "ctx: is not a known argument" in str(output.content)


# ── what is refused ──────────────────────────────────────────────────────────────────────────────


def _one(city: str) -> str:
    return city


def _generator(n: int) -> Iterator[int]:
    yield n


async def _async_generator(n: int) -> AsyncIterator[int]:
    yield n


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        (lambda x: x, "A lambda has no annotations"),
        (_generator, "_generator' is a generator; a tool returns its result in one piece"),
        (_async_generator, "is a generator"),
        (functools.partial(_one), "has no name: give one"),
        (Shop("x"), "has no name: give one"),
        (Shop, "@tool takes a function, not <class"),
        (3, "@tool takes a function, not 3"),
        ("name", "name, description and schema"),
        (get_weather, "get_weather is a tool already"),
        (Shop.order, r"Decorate the bound method, tool\(obj\.method\)"),
    ],
)
def test_what_cannot_be_a_tool_is_refused_with_what_to_do(thing: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        tool(thing)


@pytest.mark.parametrize("name", ["", "a b", "größe", "a.b", "x" * 65, 3])
def test_a_malformed_name_is_refused(name: Any) -> None:
    with pytest.raises(UsageError, match=r"1 to 64 characters of A-Z a-z 0-9 _ - are allowed"):
        tool(_one, name=name)


@pytest.mark.parametrize("name", ["a", "x" * 64, "Get-weather_2"])
def test_a_well_formed_name_is_taken(name: str) -> None:
    assert tool(_one, name=name).name == name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"read_onyl": True}, "@tool has no option read_onyl"),
        ({"backround": True}, "@tool has no option backround"),
        ({"background": True, "deferred": True}, "is background and deferred: choose one"),
        ({"detach_after": 0}, "detach_after of tool _one is 0"),
        ({"reads_files": "city"}, "reads_files of tool _one is a tuple"),
        ({"edits_files": ("path",)}, "edits_files of tool _one names 'path', which is no argument"),
        ({"timeout": 0}, "timeout of tool _one is 0; it takes seconds above 0"),
        ({"timeout": "1"}, "timeout of tool _one"),
        ({"read_only": True, "destructive": True}, "read_only, yet destructive"),
        ({"read_only": True, "edits_files": ("city",)}, "read_only, yet"),
        ({"strict": None}, "strict of tool _one is True or False"),
        ({"description": 3}, "no text"),
        ({"schema": "x"}, "is a dict or a class with fields"),
        ({"schema": int}, "is int, which is no object with fields"),
        ({"schema": {"type": "array"}}, "must be an object schema"),
        ({"schema": {"city": {"type": "string"}}}, "must be an object schema"),
        ({"schema": {"properties": {"a": {"type": "x"}}}}, "'type' at properties.a.type"),
        ({"schema": {"city": complex}}, "Argument 'city' of tool _one"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        tool(**options)(_one)


def test_a_schema_and_a_function_that_do_not_fit_are_refused() -> None:
    def two(a: int, b: int) -> None: ...

    with pytest.raises(SchemaError, match="the function takes a, b, the schema has a, c"):
        tool(schema={"a": int, "c": int})(two)
    optional = {"type": "object", "properties": {"a": {}, "b": {}}, "required": ["a"]}
    with pytest.raises(SchemaError, match="with a default where it is not required"):
        tool(schema=optional)(two)
    with pytest.raises(UsageError, match="twice"):
        tool("x", "y", {}, name="z")  # type: ignore[call-overload]


# ── sets of tools ────────────────────────────────────────────────────────────────────────────────


def test_tools_are_given_by_name_in_order() -> None:
    @dataclasses.dataclass
    class Own:
        spec: ToolSpec

        async def invoke(self, arguments: dict[str, Any], ctx: RunContext[Any]) -> ToolOutput:
            return ToolOutput("")

    own = Own(ToolSpec(name="own"))
    one = tool(_one)
    assert list(check_tools([one, own, get_weather]).items()) == [
        ("_one", one),
        ("own", own),
        ("get_weather", get_weather),
    ]
    with pytest.raises(UsageError, match="'o w n' cannot be a tool's name"):
        check_tools([Own(ToolSpec(name="o w n"))])


def test_two_tools_of_one_name_are_refused_and_both_named() -> None:
    @tool(name="_one")
    def other(town: str) -> None: ...

    with pytest.raises(UsageError, match=r"<tool _one\(city\)> and <tool _one\(town\)>"):
        check_tools([tool(_one), other])


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (_one, r"tools\[1\], _one, is no tool. Decorate it with @tool"),
        ({"type": "function"}, "It needs `spec` and `invoke`"),
        (FunctionTool, "is no tool"),
    ],
)
def test_what_is_no_tool_is_named_with_what_to_do(item: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_tools([get_weather, item])
