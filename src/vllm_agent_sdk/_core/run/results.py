"""How the results of a turn's calls join the conversation."""

from __future__ import annotations

from vllm_agent_sdk._core.run.file_text import readable
from vllm_agent_sdk._core.run.read_back import cut, cut_notification
from vllm_agent_sdk._core.run.state import ANSWER_TOOL, CallStatus, State, Stop, replace
from vllm_agent_sdk.types.messages import Message, ToolMessage, UserMessage, text_of
from vllm_agent_sdk.types.results import ErrorInfo

__all__ = ["background_ended", "closed", "turn_over"]


def turn_over(state: State) -> State:
    """All calls are answered: their results join the history, in the order of the calls."""
    state, results = _shown(state)
    if state.context:
        results.append(UserMessage("\n\n".join(state.context)))
    invalid = all(entry.status is CallStatus.INVALID for entry in state.calls)
    in_row = state.invalid_in_row + 1 if invalid else 0
    last = state.calls[-1]
    if last.spec is None and last.call.name == ANSWER_TOOL:
        in_row = state.invalid_in_row  # an invalid answer was counted as such
    state = replace(
        state,
        history=state.history.appended(*results),
        invalid_in_row=in_row,
        calls=(),
        context=(),
    )
    if invalid and in_row > state.started.limits.repairs:
        said = last.result.text if last.result is not None else last.reason
        facts = {"tool": last.call.name, "arguments_json": last.call.arguments_json}
        error = ErrorInfo("ToolArgumentsError", said, facts)
        return replace(state, stop=Stop("invalid_tool_call", error))
    return state


def closed(state: State) -> State:
    """Answer the calls that are still open, so that the transcript is valid."""
    stop = state.stop
    if not state.calls or stop is None:
        return state
    for entry in state.calls:
        if entry.result is not None:
            continue
        text = f"Not executed: the run ended ({stop.reason})."
        if entry.status is CallStatus.RUNNING:
            threaded = entry.spec is not None and entry.spec.threaded
            outcome = "outcome unknown (still running)" if threaded else "its outcome is unknown"
            text = f"The run ended ({stop.reason}) while this tool ran: {outcome}."
        result = ToolMessage(entry.call.id, text, is_error=True)
        state = state.with_call(entry.call.id, result=result)
    state, results = _shown(state)
    return replace(state, history=state.history.appended(*results), calls=(), context=())


def background_ended(
    state: State, task: str | None, message: UserMessage
) -> tuple[State, UserMessage]:
    """A background task is over; its result is cut as it would have been at once."""
    call = next((call for known, call in state.background if known == task), None)
    rest = tuple(entry for entry in state.background if entry[0] != task)
    state = replace(state, background=rest)
    message = UserMessage(readable(message.content))
    # It may be hidden by now, or the run another one.
    known = (*state.tools, *state.started.tools)
    spec = next((tool for tool in known if call is not None and tool.name == call.name), None)
    limit = None if spec is None else spec.max_output
    if call is None or task is None or limit is None:
        return state, message
    message, whole = cut_notification(message, limit, task, call.name)
    if whole is not None:
        state = replace(state, outputs=state.outputs.appended(whole))
    return state, message


def _shown(state: State) -> tuple[State, list[Message]]:
    """Give the results as the model reads them; what is cut of them stays with the run."""
    results: list[Message] = []
    for entry in state.calls:
        result = entry.result
        if result is None:
            continue
        content = readable(result.content)
        limit = None if entry.spec is None or entry.detached else entry.spec.max_output
        ran = entry.status in {CallStatus.ENDED, CallStatus.DONE}
        if ran and limit is not None and len(text_of(content)) > limit:
            content, whole = cut(content, limit, result.call_id)
            state = replace(state, outputs=state.outputs.appended(whole))
        if content is not result.content:
            result = ToolMessage(result.call_id, content, result.is_error)
        results.append(result)
    return state, results
