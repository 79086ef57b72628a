"""What the model asks the user."""

from __future__ import annotations

from typing import Any

from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types._codec import Fact

__all__ = ["Question"]


class Question(Fact, frozen=True):
    """A question of the model to the user.

    Attributes:
        id: What the answer is given under; unique in a call.
        text: The question.
        options: What to choose from; empty for a free answer. The user may always answer
            something else, too.
        multi_select: True if several answers may be given.
        secret: True if the answer should not be shown while it is typed. The model reads it, and
            it is kept with the conversation, as any other answer.
    """

    id: str
    text: str
    options: tuple[str, ...] = ()
    multi_select: bool = False
    secret: bool = False

    def wire(self) -> dict[str, Any]:
        """Give it as JSON holds it, all fields included."""
        wire: dict[str, Any] = _codec.to_builtins(self)
        return {**wire, "options": list(self.options)}
