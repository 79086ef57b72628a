"""Checkpoints in a run: which moments can be gone back to, and what going back changes."""

from __future__ import annotations

from vllm_agent_sdk._core.run.state import (
    CallState,
    Edit,
    IllegalTransitionError,
    Moment,
    Phase,
    State,
    replace,
)
from vllm_agent_sdk.types.events import Checkpointed, Rewound

__all__ = ["checkpointed", "edits_noted", "moment", "rewound"]


def checkpointed(state: State, event: Checkpointed) -> State:
    """The files were kept, or could not be; the conversation can be gone back to either way."""
    if state.phase in {Phase.PREPARING, Phase.DONE}:
        turn, history = state.turn + 1, state.history
    else:
        turn, history = state.turn, state.before_turn
    kept = state.checkpoints.appended(Moment(event, turn, history))
    return replace(state, checkpoints=kept, checkpointed=turn)


def edits_noted(state: State, entry: CallState) -> State:
    """Note a call that edits files: what it makes is deleted by a rewind."""
    if entry.spec is None or not entry.spec.edits_files or not len(state.checkpoints):
        return state
    (newest,) = state.checkpoints.since(len(state.checkpoints) - 1)
    edit = Edit(newest.event.checkpoint, entry.spec, entry.call)
    return replace(state, edits=state.edits.appended(edit))


def moment(state: State, checkpoint: str) -> Moment | None:
    """Give the checkpoint of an id, `None` if there is none."""
    return next((each for each in state.checkpoints if each.event.checkpoint == checkpoint), None)


def rewound(state: State, event: Rewound) -> State:
    """The session went back; of the conversation nothing stays that came after."""
    if not event.conversation:
        return state
    to = moment(state, event.checkpoint)
    if to is None:
        raise IllegalTransitionError(f"There is no checkpoint {event.checkpoint}")
    return replace(
        state,
        history=to.history,
        before_turn=to.history,
        said_before=len(to.history),
        stop=None,
        context_tokens=None,
        last_tokens=0,
        measured=0,
    )
