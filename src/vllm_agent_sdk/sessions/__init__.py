"""Sessions that last: stores of their logs."""

from vllm_agent_sdk.sessions.store import MemoryStore, SessionStore

__all__ = ["MemoryStore", "SessionStore"]
