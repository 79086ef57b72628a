"""Everything between a Python program and its own vLLM servers.

`from vllm_agent_sdk import AsyncVLLM, Agent, tool` is where to begin. Every public name is here,
imported when it is first used: importing the package alone costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

# fmt: off
if TYPE_CHECKING:
    __version__: str

    from vllm_agent_sdk.agent.definition import (
        Agent,
    )
    from vllm_agent_sdk.agent.query import (
        query,
    )
    from vllm_agent_sdk.agent.run.run import (
        Run,
    )
    from vllm_agent_sdk.agent.session.session import (
        Session,
    )
    from vllm_agent_sdk.agent.tools.tool import (
        tool,
    )
    from vllm_agent_sdk.agent.tools.toolset import (
        Toolset,
    )
    from vllm_agent_sdk.client.streams import (
        ChatChunkStream, ChatStream,
    )
    from vllm_agent_sdk.client.vllm import (
        AsyncVLLM,
    )
    from vllm_agent_sdk.errors import (
        AuthenticationError, BadRequestError, BudgetExceededError, CheckpointNotFoundError,
        CircuitOpenError, ClientClosedError, ConflictError, ConnectError, ConnectTimeoutError,
        ConstraintIgnoredError, ContextLengthError, EngineDeadError, FirstTokenTimeoutError,
        HookError, IdleTimeoutError, InternalServerError, LocalServerError, MCPError,
        ModelNotFoundError, NotFoundError, NotImplementedByModelError, OutputError,
        OutputStalledError, OutputValidationError, PermissionDeniedError, ProtocolError,
        RateLimitError, RunError, SchemaError, ServerError, ServerOverloadedError, SessionError,
        SessionLockedError, SessionNotFoundError, StoreError, StreamError, StreamFailedError,
        StreamTruncatedError, ToolArgumentsError, ToolCallMissingError, ToolDeniedError,
        ToolError, TotalTimeoutError, TransportError, UnprocessableEntityError,
        UnsupportedByServerError, UnsupportedControlError, UnsupportedHookOutputError, UsageError,
        VLLMError,
    )
    from vllm_agent_sdk.sessions.functions import (
        delete_session, export_session, fork_session, get_session_messages, import_session,
        list_sessions, rename_session, search_sessions, stat_session, tag_session,
    )
    from vllm_agent_sdk.sessions.memory import (
        MemoryStore,
    )
    from vllm_agent_sdk.sessions.postgres import (
        PostgresStore,
    )
    from vllm_agent_sdk.sessions.sqlite import (
        SQLiteStore,
    )
    from vllm_agent_sdk.types.chat import (
        ChatCompletion, ChatCompletionChunk, ChatDefaults, ChatParams, CompletionUsage,
    )
    from vllm_agent_sdk.types.checkpoints import (
        Checkpoint, Checkpoints, FileChange, RewindPlan,
    )
    from vllm_agent_sdk.types.events import (
        Checkpointed, ChoiceFinished, Compacted, Finished, HookRan, Interrupted, MessageAdded,
        ModelEnded, ModelStarted, Notice, PermissionAsked, PermissionDecided, ReasoningDelta,
        RefusalDelta, Rewound, RunEnded, RunEvent, RunResumed, RunStarted, RunSuspended,
        SettingsChanged, StreamEvent, SubagentEnded, SubagentStarted, TextDelta, ToolCallDelta,
        ToolCallReady, ToolEnded, ToolProgress, ToolStarted, TurnStarted, UsageUpdated,
        UserAnswered, UserAsked,
    )
    from vllm_agent_sdk.types.hooks import (
        AddContext, Ask, Block, Continue, HookEvent, Hooks, Matcher, Rewrite, RewriteOutput, Stop,
    )
    from vllm_agent_sdk.types.messages import (
        AssistantMessage, AudioBlock, ContentBlock, FileBlock, ImageBlock, Message, Prompt,
        ReasoningBlock, SystemMessage, TextBlock, ToolCall, ToolMessage, UserMessage, VideoBlock,
    )
    from vllm_agent_sdk.types.options import (
        Breaker, Context, HTTPOptions, Limits, Price, RetryPolicy, Sampling, Timeout,
    )
    from vllm_agent_sdk.types.permissions import (
        Allow, Defer, Deny, Permissions,
    )
    from vllm_agent_sdk.types.protocols import (
        ChatEvents, ChatModel, Tool,
    )
    from vllm_agent_sdk.types.questions import (
        Question,
    )
    from vllm_agent_sdk.types.results import (
        ErrorInfo, Pending, RunResult, StopReason, Usage,
    )
    from vllm_agent_sdk.types.schema_types import (
        json_schema,
    )
    from vllm_agent_sdk.types.server import (
        ModelInfo, ModelList, TokenizeReply,
    )
    from vllm_agent_sdk.types.sessions import (
        SessionInfo, SessionPage,
    )
    from vllm_agent_sdk.types.timing import (
        Timing,
    )
    from vllm_agent_sdk.types.tools import (
        RunContext, ToolOutput, ToolSpec,
    )

_MODULES = {
    "agent.definition": (
        "Agent",
    ),
    "agent.query": (
        "query",
    ),
    "agent.run.run": (
        "Run",
    ),
    "agent.session.session": (
        "Session",
    ),
    "agent.tools.tool": (
        "tool",
    ),
    "agent.tools.toolset": (
        "Toolset",
    ),
    "client.streams": (
        "ChatChunkStream", "ChatStream",
    ),
    "client.vllm": (
        "AsyncVLLM",
    ),
    "errors": (
        "AuthenticationError", "BadRequestError", "BudgetExceededError",
        "CheckpointNotFoundError", "CircuitOpenError", "ClientClosedError", "ConflictError",
        "ConnectError", "ConnectTimeoutError", "ConstraintIgnoredError", "ContextLengthError",
        "EngineDeadError", "FirstTokenTimeoutError", "HookError", "IdleTimeoutError",
        "InternalServerError", "LocalServerError", "MCPError", "ModelNotFoundError",
        "NotFoundError", "NotImplementedByModelError", "OutputError", "OutputStalledError",
        "OutputValidationError", "PermissionDeniedError", "ProtocolError", "RateLimitError",
        "RunError", "SchemaError", "ServerError", "ServerOverloadedError", "SessionError",
        "SessionLockedError", "SessionNotFoundError", "StoreError", "StreamError",
        "StreamFailedError", "StreamTruncatedError", "ToolArgumentsError", "ToolCallMissingError",
        "ToolDeniedError", "ToolError", "TotalTimeoutError", "TransportError",
        "UnprocessableEntityError", "UnsupportedByServerError", "UnsupportedControlError",
        "UnsupportedHookOutputError", "UsageError", "VLLMError",
    ),
    "sessions.functions": (
        "delete_session", "export_session", "fork_session", "get_session_messages",
        "import_session", "list_sessions", "rename_session", "search_sessions", "stat_session",
        "tag_session",
    ),
    "sessions.memory": (
        "MemoryStore",
    ),
    "sessions.postgres": (
        "PostgresStore",
    ),
    "sessions.sqlite": (
        "SQLiteStore",
    ),
    "types.chat": (
        "ChatCompletion", "ChatCompletionChunk", "ChatDefaults", "ChatParams", "CompletionUsage",
    ),
    "types.checkpoints": (
        "Checkpoint", "Checkpoints", "FileChange", "RewindPlan",
    ),
    "types.events": (
        "Checkpointed", "ChoiceFinished", "Compacted", "Finished", "HookRan", "Interrupted",
        "MessageAdded", "ModelEnded", "ModelStarted", "Notice", "PermissionAsked",
        "PermissionDecided", "ReasoningDelta", "RefusalDelta", "Rewound", "RunEnded", "RunEvent",
        "RunResumed", "RunStarted", "RunSuspended", "SettingsChanged", "StreamEvent",
        "SubagentEnded", "SubagentStarted", "TextDelta", "ToolCallDelta", "ToolCallReady",
        "ToolEnded", "ToolProgress", "ToolStarted", "TurnStarted", "UsageUpdated", "UserAnswered",
        "UserAsked",
    ),
    "types.hooks": (
        "AddContext", "Ask", "Block", "Continue", "HookEvent", "Hooks", "Matcher", "Rewrite",
        "RewriteOutput", "Stop",
    ),
    "types.messages": (
        "AssistantMessage", "AudioBlock", "ContentBlock", "FileBlock", "ImageBlock", "Message",
        "Prompt", "ReasoningBlock", "SystemMessage", "TextBlock", "ToolCall", "ToolMessage",
        "UserMessage", "VideoBlock",
    ),
    "types.options": (
        "Breaker", "Context", "HTTPOptions", "Limits", "Price", "RetryPolicy", "Sampling",
        "Timeout",
    ),
    "types.permissions": (
        "Allow", "Defer", "Deny", "Permissions",
    ),
    "types.protocols": (
        "ChatEvents", "ChatModel", "Tool",
    ),
    "types.questions": (
        "Question",
    ),
    "types.results": (
        "ErrorInfo", "Pending", "RunResult", "StopReason", "Usage",
    ),
    "types.schema_types": (
        "json_schema",
    ),
    "types.server": (
        "ModelInfo", "ModelList", "TokenizeReply",
    ),
    "types.sessions": (
        "SessionInfo", "SessionPage",
    ),
    "types.timing": (
        "Timing",
    ),
    "types.tools": (
        "RunContext", "ToolOutput", "ToolSpec",
    ),
}

__all__ = [
    "AddContext", "Agent", "Allow", "Ask", "AssistantMessage", "AsyncVLLM", "AudioBlock",
    "AuthenticationError", "BadRequestError", "Block", "Breaker", "BudgetExceededError",
    "ChatChunkStream", "ChatCompletion", "ChatCompletionChunk", "ChatDefaults", "ChatEvents",
    "ChatModel", "ChatParams", "ChatStream", "Checkpoint", "CheckpointNotFoundError",
    "Checkpointed", "Checkpoints", "ChoiceFinished", "CircuitOpenError", "ClientClosedError",
    "Compacted", "CompletionUsage", "ConflictError", "ConnectError", "ConnectTimeoutError",
    "ConstraintIgnoredError", "ContentBlock", "Context", "ContextLengthError", "Continue", "Defer",
    "Deny", "EngineDeadError", "ErrorInfo", "FileBlock", "FileChange", "Finished",
    "FirstTokenTimeoutError", "HTTPOptions", "HookError", "HookEvent", "HookRan", "Hooks",
    "IdleTimeoutError", "ImageBlock", "InternalServerError", "Interrupted", "Limits",
    "LocalServerError", "MCPError", "Matcher", "MemoryStore", "Message", "MessageAdded",
    "ModelEnded", "ModelInfo", "ModelList", "ModelNotFoundError", "ModelStarted", "NotFoundError",
    "NotImplementedByModelError", "Notice", "OutputError", "OutputStalledError",
    "OutputValidationError", "Pending", "PermissionAsked", "PermissionDecided",
    "PermissionDeniedError", "Permissions", "PostgresStore", "Price", "Prompt", "ProtocolError",
    "Question", "RateLimitError", "ReasoningBlock", "ReasoningDelta", "RefusalDelta", "RetryPolicy",
    "RewindPlan", "Rewound", "Rewrite", "RewriteOutput", "Run", "RunContext", "RunEnded",
    "RunError", "RunEvent", "RunResult", "RunResumed", "RunStarted", "RunSuspended", "SQLiteStore",
    "Sampling", "SchemaError", "ServerError", "ServerOverloadedError", "Session", "SessionError",
    "SessionInfo", "SessionLockedError", "SessionNotFoundError", "SessionPage", "SettingsChanged",
    "Stop", "StopReason", "StoreError", "StreamError", "StreamEvent", "StreamFailedError",
    "StreamTruncatedError", "SubagentEnded", "SubagentStarted", "SystemMessage", "TextBlock",
    "TextDelta", "Timeout", "Timing", "TokenizeReply", "Tool", "ToolArgumentsError", "ToolCall",
    "ToolCallDelta", "ToolCallMissingError", "ToolCallReady", "ToolDeniedError", "ToolEnded",
    "ToolError", "ToolMessage", "ToolOutput", "ToolProgress", "ToolSpec", "ToolStarted", "Toolset",
    "TotalTimeoutError", "TransportError", "TurnStarted", "UnprocessableEntityError",
    "UnsupportedByServerError", "UnsupportedControlError", "UnsupportedHookOutputError", "Usage",
    "UsageError", "UsageUpdated", "UserAnswered", "UserAsked", "UserMessage", "VLLMError",
    "VideoBlock", "delete_session", "export_session", "fork_session", "get_session_messages",
    "import_session", "json_schema", "list_sessions", "query", "rename_session", "search_sessions",
    "stat_session", "tag_session", "tool",
]
# fmt: on

_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from vllm_agent_sdk._version import __version__

        return __version__
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "__version__"])
