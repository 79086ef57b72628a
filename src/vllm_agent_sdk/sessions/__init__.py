"""Sessions that last: stores of their logs."""

from vllm_agent_sdk.sessions.memory import MemoryStore
from vllm_agent_sdk.sessions.store import SessionLog, SessionQuery, SessionStore
from vllm_agent_sdk.types.sessions import SessionInfo, SessionPage

__all__ = [
    "MemoryStore",
    "SessionInfo",
    "SessionLog",
    "SessionPage",
    "SessionQuery",
    "SessionStore",
]
