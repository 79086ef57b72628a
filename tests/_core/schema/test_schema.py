"""Parameters made of signatures: the schema the model sees, the objects the function gets."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import functools
import pathlib
import sys
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Required,
    TypedDict,
    TypeVar,
)

import msgspec
import pydantic
import pytest
from typing_extensions import Doc, TypeAliasType

from vllm_agent_sdk._core.schema.schema import MismatchError, Validator, parameters_of, type_schema
from vllm_agent_sdk.errors import SchemaError

pytestmark = pytest.mark.feature("A-03")

T = TypeVar("T")
UserId = NewType("UserId", int)
Json = TypeAliasType("Json", "dict[str, Json] | list[Json] | str | None")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@dataclasses.dataclass
class Point:
    """A point.

    Attributes:
        x: To the right.
    """

    x: int
    y: float = 1.5


@dataclasses.dataclass
class Tree:
    name: str
    children: list[Tree] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Box(Generic[T]):
    item: T


class Movie(TypedDict, total=False):
    title: Required[str]
    year: Annotated[int, "When it came out."]


class Partial(TypedDict):
    a: int
    b: NotRequired[str]


class Pair(NamedTuple):
    first: int
    second: str = "b"


class Cat(msgspec.Struct, tag=True):
    name: str
    born: dt.date | None = None


class Dog(msgspec.Struct, tag=True):
    name: str


class Address(pydantic.BaseModel):
    """Where someone lives."""

    street: str = pydantic.Field(description="With the number.")
    zip_code: Annotated[str, pydantic.Field(pattern=r"^\d{5}$")]
    next: Address | None = None


def schema_of(annotation: Any) -> dict[str, Any]:
    return type_schema(annotation, "The type")[0]


def decoded(annotation: Any, value: Any) -> Any:
    return type_schema(annotation, "The type")[1](value, "")


# ── types ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("annotation", "schema"),
    [
        (str, {"type": "string"}),
        (int, {"type": "integer"}),
        (float, {"type": "number"}),
        (bool, {"type": "boolean"}),
        (None, {"type": "null"}),
        (Any, {}),
        (object, {}),
        (list, {"type": "array"}),
        (list[int], {"type": "array", "items": {"type": "integer"}}),
        (Sequence[str], {"type": "array", "items": {"type": "string"}}),
        (Iterable[str], {"type": "array", "items": {"type": "string"}}),
        (set[int], {"type": "array", "items": {"type": "integer"}}),
        (tuple[int, ...], {"type": "array", "items": {"type": "integer"}}),
        (dict, {"type": "object"}),
        (Mapping[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
        (Literal["a", "b"], {"type": "string", "enum": ["a", "b"]}),
        (Literal[1, "a"] | None, {"anyOf": [{"enum": [1, "a"]}, {"type": "null"}]}),
        (Literal[Colour.RED], {"type": "string", "enum": ["red"]}),
        (Colour, {"type": "string", "enum": ["red", "blue"]}),
        (Level, {"type": "integer", "enum": [1, 2]}),
        (int | None, {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        (Any | None, {}),
        (UserId, {"type": "integer"}),
        (pathlib.Path, {"type": "string"}),
        (dt.datetime, {"type": "string", "format": "date-time"}),
        (uuid.UUID, {"type": "string", "format": "uuid"}),
        (bytes, {"type": "string", "contentEncoding": "base64"}),
    ],
)
def test_a_type_becomes_its_schema(annotation: Any, schema: dict[str, Any]) -> None:
    assert schema_of(annotation) == schema


def test_a_tuple_of_fixed_length_says_each_item_and_the_length() -> None:
    assert schema_of(tuple[int, str]) == {
        "type": "array",
        "prefixItems": [{"type": "integer"}, {"type": "string"}],
        "items": False,
        "minItems": 2,
        "maxItems": 2,
    }


@pytest.mark.parametrize(
    ("annotation", "value", "result"),
    [
        (int, 3.0, 3),
        (float, 3, 3.0),
        (int | float, 3.0, 3.0),
        (float | int, 3, 3),
        (Colour, "red", Colour.RED),
        (Level, 2, Level.HIGH),
        (Colour | str, "red", Colour.RED),
        (Colour | str, "green", "green"),
        (Literal[Colour.BLUE], "blue", Colour.BLUE),
        (set[int], [1, 2, 1], {1, 2}),
        (frozenset[str], ["a"], frozenset({"a"})),
        (tuple[int, str], [1, "a"], (1, "a")),
        (tuple[int, ...], [1, 2], (1, 2)),
        (dict[int, str], {"1": "a"}, {1: "a"}),
        (dict[Colour, int], {"red": 1}, {Colour.RED: 1}),
        (pathlib.Path, "/tmp/x", pathlib.Path("/tmp/x")),
        (dt.date, "2024-01-02", dt.date(2024, 1, 2)),
        (decimal.Decimal, "1.50", decimal.Decimal("1.50")),
        (bytes, "AAE=", b"\x00\x01"),
        (Point, {"x": 1}, Point(1)),
        (list[Point], [{"x": 1, "y": 2}], [Point(1, 2.0)]),
        (Box[Point], {"item": {"x": 1}}, Box(Point(1))),
        (Tree, {"name": "a", "children": [{"name": "b"}]}, Tree("a", [Tree("b")])),
        (Pair, {"first": 1}, Pair(1)),
        (Movie, {"title": "x"}, {"title": "x"}),
        (Cat | Dog, {"type": "Dog", "name": "x"}, Dog("x")),
        (Cat, {"type": "Cat", "name": "x", "born": "2024-01-02"}, Cat("x", dt.date(2024, 1, 2))),
        (Point | list[int] | None, [1], [1]),
        (Json, {"a": [{"b": None}, "c"]}, {"a": [{"b": None}, "c"]}),
    ],
)
def test_a_value_becomes_an_object_of_its_type(annotation: Any, value: Any, result: Any) -> None:
    assert not Validator(schema_of(annotation)).errors(value)
    made = decoded(annotation, value)
    assert made == result
    assert type(made) is type(result)


def test_pydantic_models_are_asked_for_their_schema_and_validate_themselves() -> None:
    schema, decode = type_schema(list[Address], "The type")
    address = schema["$defs"]["Address"]
    assert address["description"] == "Where someone lives."
    assert address["properties"]["street"] == {"type": "string", "description": "With the number."}
    made = decode([{"street": "A 1", "zip_code": "12345", "next": None}], "")
    assert made == [Address(street="A 1", zip_code="12345")]
    with pytest.raises(MismatchError, match=r"^\[0\]\.zip_code: String should match"):
        decode([{"street": "A 1", "zip_code": "1"}], "")


def test_pydantic_dataclasses_and_types_work_too() -> None:
    @pydantic.dataclasses.dataclass
    class Range:
        low: Annotated[int, pydantic.Field(ge=0)]

    assert schema_of(Range)["properties"]["low"] == {"type": "integer", "minimum": 0}
    assert decoded(Range, {"low": 1}) == Range(1)
    assert schema_of(pydantic.AnyUrl) == {"type": "string", "format": "uri", "minLength": 1}


def test_a_type_that_contains_itself_is_a_reference_and_others_are_written_in_place() -> None:
    schema = schema_of(dict[str, Tree | Point])
    assert list(schema["$defs"]) == ["Tree"]
    assert schema["$defs"]["Tree"]["properties"]["children"]["items"] == {"$ref": "#/$defs/Tree"}
    assert schema["additionalProperties"]["anyOf"][1]["properties"]["x"]["type"] == "integer"
    assert Validator(schema).errors({"a": {"name": "x", "children": [{"name": 3}]}})


def test_two_classes_of_one_name_stay_apart() -> None:
    def other() -> type:
        @dataclasses.dataclass
        class Tree:
            leaves: int
            inner: list[Tree]

        return Tree

    second = other()
    schema = schema_of(tuple[Tree, second])  # type: ignore[valid-type]
    assert set(schema["$defs"]) == {"Tree", "Tree_"}


def test_msgspec_and_pydantic_definitions_of_one_name_stay_apart() -> None:
    class Node(msgspec.Struct):
        inner: list[Cat]
        more: list[Cat]

    class Model(pydantic.BaseModel):
        cats: list[Tree]

    schema, _ = type_schema(tuple[Node, Model, Tree], "The type", {"Cat": Cat, "Tree": Tree})
    Validator(schema).check()
    tree = {"name": "a"}
    assert not Validator(schema).errors([{"inner": [], "more": []}, {"cats": [tree]}, tree])


def test_typed_dicts_know_which_keys_are_required_though_annotations_are_strings() -> None:
    assert schema_of(Movie)["required"] == ["title"]
    assert schema_of(Partial)["required"] == ["a"]
    assert schema_of(Movie)["properties"]["year"]["description"] == "When it came out."


def test_object_types_refuse_unknown_and_missing_keys() -> None:
    assert schema_of(Point)["additionalProperties"] is False
    for value in ({"x": 1, "z": 2}, {"y": 1.0}, {"x": "a"}, []):
        assert Validator(schema_of(Point)).errors(value)
        with pytest.raises(MismatchError):
            decoded(Point, value)


def test_what_a_class_itself_refuses_is_a_mismatch_with_its_words() -> None:
    @dataclasses.dataclass
    class Even:
        n: int

        def __post_init__(self) -> None:
            if self.n % 2:
                raise ValueError("n must be even")

    with pytest.raises(MismatchError, match=r"^\[1\]: n must be even$"):
        decoded(list[Even], [{"n": 2}, {"n": 3}])


# ── annotations ──────────────────────────────────────────────────────────────────────────────────


class Sizes(msgspec.Struct):
    pass


@pytest.mark.parametrize(
    ("annotation", "schema"),
    [
        (Annotated[int, "How many."], {"type": "integer", "description": "How many."}),
        (Annotated[int, Doc("How many.")], {"type": "integer", "description": "How many."}),
        (
            Annotated[int, msgspec.Meta(ge=1, lt=9, description="N", examples=[3])],
            {
                "type": "integer",
                "description": "N",
                "examples": [3],
                "minimum": 1,
                "exclusiveMaximum": 9,
            },
        ),
        (
            Annotated[str, pydantic.Field(min_length=2, pattern="^a", description="S")],
            {"type": "string", "description": "S", "minLength": 2, "pattern": "^a"},
        ),
        (
            Annotated[list[int], msgspec.Meta(max_length=3)],
            {"type": "array", "items": {"type": "integer"}, "maxItems": 3},
        ),
        (
            Annotated[str | None, msgspec.Meta(max_length=3)],
            {"anyOf": [{"type": "string", "maxLength": 3}, {"type": "null"}]},
        ),
        (
            Annotated[str, msgspec.Meta(extra_json_schema={"format": "email"})],
            {"type": "string", "format": "email"},
        ),
    ],
)
def test_annotated_adds_descriptions_and_limits(annotation: Any, schema: dict[str, Any]) -> None:
    assert schema_of(annotation) == schema


# ── signatures ───────────────────────────────────────────────────────────────────────────────────


def test_defaults_are_shown_and_make_a_parameter_optional() -> None:
    def f(
        a: int,
        b: Colour = Colour.BLUE,
        c: Point = Point(1),  # noqa: B008
        d: str | None = None,
        e: Any = object(),  # noqa: B008
    ) -> None: ...

    schema = parameters_of(f).schema
    assert schema["required"] == ["a"]
    properties = schema["properties"]
    assert properties["b"]["default"] == "blue"
    assert properties["c"]["default"] == {"x": 1, "y": 1.5}
    assert properties["d"]["default"] is None
    assert "default" not in properties["e"]
    assert schema["additionalProperties"] is False


def test_none_as_a_default_means_that_none_may_be_given() -> None:
    def f(x: int = None) -> None: ...  # type: ignore[assignment]  # noqa: RUF013

    assert not Validator(parameters_of(f).schema).errors({"x": None})


def test_the_docstring_describes_parameters_and_an_annotation_wins() -> None:
    def f(a: int, b: Annotated[str, "From the annotation."], point: Point) -> None:
        """Do it.

        Args:
            a: From the docstring.
            b: Not seen.
            point: Where.
        """

    properties = parameters_of(f).schema["properties"]
    assert properties["a"]["description"] == "From the docstring."
    assert properties["b"]["description"] == "From the annotation."
    # A class used once is written in place, with what is said of it as a type or a parameter.
    assert properties["point"]["properties"]["x"]["description"] == "To the right."
    assert properties["point"]["description"] == "Where."


def test_positional_only_and_keyword_parameters_are_filled_as_they_must_be() -> None:
    def f(a: int, b: int = 2, /, c: int = 3, *, d: int, **rest: int) -> tuple[Any, ...]:
        return a, b, c, d, rest

    parameters = parameters_of(f)
    assert parameters.schema["additionalProperties"] == {"type": "integer"}
    args, kwargs = parameters.bind({"a": 1, "d": 4, "z": 5.0}, {})
    assert f(*args, **kwargs) == (1, 2, 3, 4, {"z": 5})
    assert not Validator(parameters.schema).errors({"a": 1, "d": 4, "z": 5})
    assert Validator(parameters.schema).errors({"a": 1, "d": 4, "z": "x"}) == [
        'z: "x" is not of type "integer"'
    ]


def test_skipped_parameters_are_not_in_the_schema_and_are_filled_from_beside_it() -> None:
    def f(ctx: object, /, a: int) -> None: ...

    parameters = parameters_of(f, skip=("ctx",))
    assert list(parameters.schema["properties"]) == ["a"]
    marker = object()
    assert parameters.bind({"a": 1}, {"ctx": marker}) == ([marker], {"a": 1})


def test_what_a_partial_holds_is_neither_shown_nor_accepted() -> None:
    def f(a: int, key: str) -> str:
        return f"{a}{key}"

    parameters = parameters_of(functools.partial(f, key="secret"))
    assert "secret" not in str(parameters.schema)
    assert list(parameters.schema["properties"]) == ["a"]
    with pytest.raises(MismatchError):
        parameters.bind({"a": 1, "key": "other"}, {})


def test_arguments_are_copied_so_that_a_function_cannot_change_the_call() -> None:
    def f(a: dict, b: Any, c: list[Any]) -> None: ...  # type: ignore[type-arg]

    arguments = {"a": {"x": [1]}, "b": [2], "c": [[3]]}
    _, kwargs = parameters_of(f).bind(arguments, {})
    kwargs["a"]["x"].append(1)
    kwargs["b"].append(1)
    kwargs["c"][0].append(1)
    assert arguments == {"a": {"x": [1]}, "b": [2], "c": [[3]]}


def test_an_unknown_name_in_the_return_annotation_does_not_matter() -> None:
    def f(a: int) -> Unknown:  # type: ignore[name-defined]  # noqa: F821
        ...

    assert parameters_of(f).schema["properties"] == {"a": {"type": "integer"}}


def test_no_validator_is_loaded_for_a_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jsonschema_rs", None)

    def f(a: list[Point], b: Cat | Dog) -> None: ...

    assert parameters_of(f).schema["required"] == ["a", "b"]


# ── what is refused ──────────────────────────────────────────────────────────────────────────────


def _variadic(*numbers: int) -> None: ...
def _bare(x) -> None: ...  # type: ignore[no-untyped-def]
def _unknown(x: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def _complex(x: complex) -> None: ...
def _keys(x: dict[tuple[int, int], str]) -> None: ...
def _field(x: int = pydantic.Field(3)) -> None: ...
def _bytes(x: Literal[b"a"]) -> None: ...
def _nested(x: list[dict[str, complex]]) -> None: ...


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (_variadic, r"Parameter 'numbers' of _variadic: \*numbers .* take a list"),
        (_bare, "Parameter 'x' of _bare has no annotation. Annotate it, for example `x: str`"),
        (_unknown, "Parameter 'x' of _unknown: its annotation 'Nowhere' cannot be resolved"),
        (_complex, "Parameter 'x' of _complex: no JSON Schema can be made of complex"),
        (_keys, "Parameter 'x' of _keys: the keys of a JSON object are text"),
        (_field, r"Parameter 'x' of _field: write `x: Annotated\[…, Field\(…\)\]"),
        (_bytes, "Parameter 'x' of _bytes: b'a' has no JSON form"),
        (_nested, "Parameter 'x' of _nested: no JSON Schema can be made of complex"),
        (print, r"has no signature|\*args has no place"),
    ],
)
def test_a_parameter_without_a_schema_is_named_with_what_to_do(function: Any, message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        parameters_of(function)


def test_object_members_of_a_union_must_be_told_apart() -> None:
    @dataclasses.dataclass
    class More:
        x: int
        z: int = 0

    @dataclasses.dataclass
    class Tagged:
        kind: Literal["tagged"]

    @dataclasses.dataclass
    class Other:
        kind: Literal["other"]

    with pytest.raises(
        SchemaError, match="The type: two members of the union cannot be told apart"
    ):
        schema_of(Point | More)
    with pytest.raises(SchemaError, match="cannot be told apart"):
        schema_of(Point | dict[str, int])
    assert decoded(Tagged | Other, {"kind": "other"}) == Other("other")
    assert decoded(Point | Tree, {"name": "a"}) == Tree("a")
    assert decoded(dict[str, int] | dict[str, str], {"a": "b"}) == {"a": "b"}


def test_an_init_var_and_a_struct_with_a_foreign_class_are_refused() -> None:
    @dataclasses.dataclass
    class WithInit:
        a: dataclasses.InitVar[int]

    class WithComplex(msgspec.Struct):
        a: Sizes | None
        b: frozenset[Any] | Exception

    with pytest.raises(SchemaError, match="InitVar"):
        schema_of(WithInit)
    with pytest.raises(SchemaError, match="msgspec has no schema"):
        schema_of(WithComplex)
