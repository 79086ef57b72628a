"""The blocking twins of the session functions: the same arguments, without `await`.

They work without an event loop, inside a running one (a notebook), and from any thread.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

from vllm_agent_sdk._portal import call
from vllm_agent_sdk.sessions import functions

__all__ = [
    "delete_session",
    "export_session",
    "fork_session",
    "get_session_messages",
    "import_session",
    "list_sessions",
    "rename_session",
    "search_sessions",
    "stat_session",
    "tag_session",
]

P = ParamSpec("P")
T = TypeVar("T")


def _blocking(function: Callable[P, Awaitable[T]]) -> Callable[P, T]:
    @functools.wraps(function)
    def twin(*args: P.args, **kwargs: P.kwargs) -> T:
        return call(lambda: function(*args, **kwargs))

    return twin


delete_session = _blocking(functions.delete_session)
export_session = _blocking(functions.export_session)
fork_session = _blocking(functions.fork_session)
get_session_messages = _blocking(functions.get_session_messages)
import_session = _blocking(functions.import_session)
list_sessions = _blocking(functions.list_sessions)
rename_session = _blocking(functions.rename_session)
search_sessions = _blocking(functions.search_sessions)
stat_session = _blocking(functions.stat_session)
tag_session = _blocking(functions.tag_session)
