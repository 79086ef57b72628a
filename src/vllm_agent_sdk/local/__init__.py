"""A vLLM server of one's own: found or provisioned, started, watched, ended.

A leaf of the package: the standard library, `errors`, and anyio for one shield. Nothing is imported
from vLLM or PyTorch, and nothing is read from the environment, before a server is asked for.
"""

from vllm_agent_sdk.local._cache import purge
from vllm_agent_sdk.local._facts import Facts, gather_facts, problem
from vllm_agent_sdk.local._progress import ProgressCallback, ProgressEvent
from vllm_agent_sdk.local._server import LocalServer, LocalServerOptions

__all__ = [
    "Facts",
    "LocalServer",
    "LocalServerOptions",
    "ProgressCallback",
    "ProgressEvent",
    "gather_facts",
    "problem",
    "purge",
]
