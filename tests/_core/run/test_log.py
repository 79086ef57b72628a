"""The shared log: appending costs no copy, and no version sees another's items."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vllm_agent_sdk._core.run.log import Log


def test_appending_to_the_newest_version_shares_the_list() -> None:
    first: Log[int] = Log([1])
    second = first.appended(2, 3)
    assert list(first) == [1]
    assert list(second) == [1, 2, 3]
    assert second._items is first._items
    assert first.appended() is first


def test_a_fork_does_not_see_the_other_branch() -> None:
    root: Log[int] = Log([1])
    left = root.appended(2)
    right = root.appended(3)
    assert (list(left), list(right), list(root)) == ([1, 2], [1, 3], [1])
    assert list(left.appended(4)) == [1, 2, 4]
    assert list(right) == [1, 3]


def test_a_log_can_be_the_beginning_of_a_list_that_others_share() -> None:
    whole = Log([1, 2, 3])
    part = Log(whole.shared, 2)
    assert (list(part), len(part)) == ([1, 2], 2)
    assert whole.begins_with(part)
    assert list(part.appended(9)) == [1, 2, 9]
    assert list(whole.appended(4)) == [1, 2, 3, 4]


def test_it_is_read_like_a_list() -> None:
    log: Log[int] = Log().appended(1, 2, 3)
    assert (len(log), log.since(1), log.since(3)) == (3, [2, 3], [])
    assert log == Log([1, 2, 3])
    assert log != [1, 2, 3]
    assert hash(log) == hash(Log([1, 2, 3]))
    assert repr(log) == "Log(3 items)"


@given(steps=st.lists(st.tuples(st.integers(0, 30), st.lists(st.integers(), max_size=3))))
def test_every_version_keeps_its_items_whatever_is_appended_to_which(
    steps: list[tuple[int, list[int]]],
) -> None:
    versions: list[tuple[Log[int], list[int]]] = [(Log(), [])]
    for at, items in steps:
        log, expected = versions[at % len(versions)]
        versions.append((log.appended(*items), expected + items))
        for version, of_it in versions:
            assert list(version) == of_it
            assert len(version) == len(of_it)


@given(steps=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3)), max_size=12))
def test_a_version_begins_with_another_where_it_has_the_same_items(
    steps: list[tuple[int, int]],
) -> None:
    versions: list[Log[list[int]]] = [Log()]
    for at, count in steps:
        # Equal items are not the same ones.
        versions.append(versions[at % len(versions)].appended(*([] for _ in range(count))))
    for one in versions:
        for other in versions:
            mine, its = list(one), list(other)
            same = len(mine) >= len(its) and all(a is b for a, b in zip(mine, its, strict=False))
            assert one.begins_with(other) == same
