"""What hooks answer, and what becomes of it."""

from __future__ import annotations

from vllm_agent_sdk._core.run import calls, model
from vllm_agent_sdk._core.run.state import Phase, State, replace
from vllm_agent_sdk.types.events import Compacted, HookRan
from vllm_agent_sdk.types.hooks import AddContext, Block, Continue, Rewrite
from vllm_agent_sdk.types.hooks import Stop as StopOutput
from vllm_agent_sdk.types.messages import TextBlock, UserMessage
from vllm_agent_sdk.types.results import ErrorInfo

__all__ = ["hook_ran"]


def hook_ran(state: State, event: HookRan) -> State:
    """Let what a hook answered have its effect."""
    if event.event in {"notification", "session_end"}:
        return state
    if event.event == "session_start":
        return replace(state, notes=(*state.notes, *_context(event)))
    if event.call_id is not None:
        return calls.hook_on_call(state, event)
    if state.phase is Phase.DONE:
        # A summary between runs: whoever asked for it is told of what forbids it.
        return replace(state, instruction=_instructed(state, event))
    state = replace(state, hook=state.hook + 1)
    stop = next((output for output in event.outputs if isinstance(output, StopOutput)), None)
    if stop is not None:
        return replace(state, stop=calls.stopped_by(event.hook, stop.reason))
    match event.event:
        case "user_prompt_submit":
            return _hook_on_prompt(state, event)
        case "stop":
            return _hook_on_end(state, event)
    return _hook_on_summary(state, event)


def _context(event: HookRan) -> list[UserMessage]:
    return [UserMessage(output.text) for output in event.outputs if isinstance(output, AddContext)]


def _hook_on_summary(state: State, event: HookRan) -> State:
    for output in event.outputs:
        match output:
            case Block(reason=reason):
                text = f"{event.hook} blocked the summary: {reason}"
                return model.compacted(state, Compacted(error=ErrorInfo("HookError", text)))
    return replace(state, instruction=_instructed(state, event))


def _instructed(state: State, event: HookRan) -> str:
    return "\n".join(filter(None, [state.instruction, *(each.text for each in _context(event))]))


def _hook_on_prompt(state: State, event: HookRan) -> State:
    for output in event.outputs:
        first, *rest = state.prompts
        match output:
            case Block(reason=reason):
                # A blocked prompt never was: the model does not hear of it.
                state = replace(state, prompts=tuple(rest), hook=0)
                return replace(state, stop=calls.stopped_by(event.hook, reason))
            case Rewrite(input={"prompt": str() as text}):
                state = replace(state, prompts=(_with_text(first, text), *rest))
            case AddContext(text=text):
                state = replace(state, prompts=(_added(first, text), *rest))
    return state


def _with_text(message: UserMessage, text: str) -> UserMessage:
    """Give a prompt with another text; what else it holds stays."""
    if isinstance(message.content, str):
        return UserMessage(text)
    others = [block for block in message.content if not isinstance(block, TextBlock)]
    return UserMessage([TextBlock(text), *others])


def _added(message: UserMessage, text: str) -> UserMessage:
    if isinstance(message.content, str):
        return UserMessage(f"{message.content}\n\n{text}")
    return UserMessage([*message.content, TextBlock(text)])


def _hook_on_end(state: State, event: HookRan) -> State:
    for output in event.outputs:
        match output:
            case Continue(instruction=text) | Block(reason=text):
                said = text if state.say is None else f"{state.say[0].text}\n\n{text}"
                state = replace(state, say=(UserMessage(said), "hook"))
            case AddContext(text=text):
                state = replace(state, notes=(*state.notes, UserMessage(text)))
    return state
