"""Any value that a function's types accept validates as JSON and comes back equal."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import inspect
import json
import uuid
from typing import Any, Literal, NamedTuple, TypedDict

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_agent_sdk._core.schema.schema import Validator, parameters_of
from vllm_agent_sdk._core.schema.values import to_json

pytestmark = pytest.mark.feature("A-03")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Grade(enum.IntEnum):
    GOOD = 1
    BAD = 2


@dataclasses.dataclass(frozen=True)
class Point:
    x: int
    label: str = ""


@dataclasses.dataclass
class Tree:
    points: list[Point]
    left: Tree | None = None


class Movie(TypedDict, total=False):
    title: str
    colour: Colour


class Pair(NamedTuple):
    first: bool
    second: float


class Record(msgspec.Struct, tag=True):
    at: dt.date
    ids: dict[int, uuid.UUID]


class Model(pydantic.BaseModel):
    colours: list[Colour]
    points: tuple[Point, ...] = ()


_ints = st.integers(-(2**60), 2**60)
_floats = st.floats(allow_nan=False, allow_infinity=False)
_texts = st.text(max_size=5)
_points = st.builds(Point, _ints, _texts)
_dates = st.dates()

#: A type, and its values.
TYPES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (int, _ints),
    (float, _floats),
    (bool, st.booleans()),
    (str, _texts),
    (type(None), st.none()),
    (Literal["a", 1, True], st.sampled_from(["a", 1, True])),
    (Colour, st.sampled_from(Colour)),
    (Grade, st.sampled_from(Grade)),
    (dt.date, _dates),
    (uuid.UUID, st.uuids()),
    (Point, _points),
    (
        Tree,
        st.builds(Tree, st.lists(_points, max_size=2), st.none() | st.builds(Tree, st.just([]))),
    ),
    (
        Movie,
        st.fixed_dictionaries({}, optional={"title": _texts, "colour": st.sampled_from(Colour)}),
    ),
    (Pair, st.builds(Pair, st.booleans(), _floats)),
    (Record, st.builds(Record, _dates, st.dictionaries(st.integers(0, 9), st.uuids(), max_size=2))),
    (
        Model,
        st.builds(
            Model,
            colours=st.lists(st.sampled_from(Colour), max_size=2),
            points=st.lists(_points, max_size=2).map(tuple),
        ),
    ),
    (set[int], st.sets(_ints, max_size=3)),
    (frozenset[Point], st.frozensets(_points, max_size=2)),
    (int | float | str | None, _ints | _floats | _texts | st.none()),
]
_base = st.sampled_from(TYPES)

Typed = tuple[Any, st.SearchStrategy[Any]]


def _wider(inner: st.SearchStrategy[Typed]) -> st.SearchStrategy[Typed]:
    return st.one_of(
        inner.map(lambda t: (list[t[0]], st.lists(t[1], max_size=2))),  # type: ignore[name-defined]
        inner.map(lambda t: (tuple[t[0], ...], st.lists(t[1], max_size=2).map(tuple))),  # type: ignore[name-defined]
        inner.map(lambda t: (dict[str, t[0]], st.dictionaries(_texts, t[1], max_size=2))),  # type: ignore[name-defined]
        inner.map(lambda t: (t[0] | None, t[1] | st.none())),
        st.tuples(inner, inner).map(
            lambda p: (tuple[p[0][0], p[1][0]], st.tuples(p[0][1], p[1][1]))
        ),  # type: ignore[misc,name-defined]
    )


ANY_TYPE = st.recursive(_base, _wider, max_leaves=3)


def _function(types: dict[str, Any]) -> Any:
    def f(**values: Any) -> dict[str, Any]:
        return values

    kinds = inspect.Parameter.KEYWORD_ONLY
    f.__annotations__ = types
    f.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, kinds, annotation=type_) for name, type_ in types.items()]
    )
    return f


@given(st.data(), st.dictionaries(st.sampled_from("abc"), ANY_TYPE, min_size=1, max_size=3))
def test_values_of_the_types_validate_and_come_back_equal(
    data: st.DataObject, typed: dict[str, Typed]
) -> None:
    f = _function({name: type_ for name, (type_, _) in typed.items()})
    values = {name: data.draw(strategy) for name, (_, strategy) in typed.items()}
    parameters = parameters_of(f)
    wire = json.loads(json.dumps({name: to_json(value) for name, value in values.items()}))
    validator = Validator(parameters.schema)
    assert validator.errors(wire) == []
    repaired, _ = validator.coerce(wire)
    assert repaired == wire
    _, kwargs = parameters.bind(repaired, {})
    assert kwargs == values
    assert [type(kwargs[name]) for name in values] == [type(value) for value in values.values()]


@given(ANY_TYPE, ANY_TYPE)
def test_every_generated_schema_is_valid_and_its_references_exist(one: Typed, two: Typed) -> None:
    schema = parameters_of(_function({"a": one[0], "b": two[0]})).schema
    Validator(schema).check()
    assert json.loads(json.dumps(schema)) == schema
