"""What a simulated server answers: scripted replies.

A `Reply` says what the model does and what goes wrong on the way; how this looks in bytes, streamed
or whole, follows from the request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, TypedDict

from typing_extensions import Unpack

from vllm_agent_sdk.errors import UsageError
from vllm_agent_sdk.testing.error_bodies import (
    DEAD_ENGINE,
    Shape,
    error_object,
    overflow,
    shaped,
)
from vllm_agent_sdk.testing.exchange import Pacing
from vllm_agent_sdk.types.messages import ToolCall

__all__ = ["Call", "Reply", "ReplyOptions", "ReplyUsage"]

#: A call: its name and arguments, and its id where it matters. Arguments are an object, JSON text
#: as a model may write it (broken, too), or the exact pieces in which such text is streamed.
Arguments: TypeAlias = Mapping[str, Any] | str | Sequence[str]
Call: TypeAlias = tuple[str, Arguments] | tuple[str, Arguments, str] | ToolCall


class ReplyUsage(TypedDict, total=False):
    """Token counts of a reply; what is left out is counted, or not reported.

    Attributes:
        prompt_tokens: Default: what `/tokenize` says of the messages.
        completion_tokens: Default: the number of pieces the reply is streamed in.
        cached_tokens: Default: not reported, as by a server without
            `--enable-prompt-tokens-details`.
        created_cache_tokens: Those of the prompt that are in the cache from now on. Default: the
            same; chat only.
        reasoning_tokens: Default: reported for replies with reasoning only.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    created_cache_tokens: int
    reasoning_tokens: int


class ReplyOptions(TypedDict, total=False):
    """What any reply can be told beside what it says.

    Attributes:
        usage: Token counts; see `ReplyUsage`.
        finish_reason: Instead of the one that follows (`"stop"` or `"tool_calls"`). With
            `"length"` it comes on the last piece itself.
        stop_reason: The stop string or token id that matched. Default `None`.
        delay: Seconds before each chunk of a stream, or before a whole reply. Default 0.
        first_delay: Seconds before the first chunk, or the whole reply, instead of `delay`.
        split: Send the body in pieces of this many bytes. Default: one event a piece.
        cut_after: End the connection after this many bytes of the body, without a proper end;
            -1 ends it before the head. Default: no cut.
        reset: Reset the connection at the cut (RST) instead of closing it. Default `False`.
        error_after: Send an error frame, then `[DONE]`, after this many chunks of the stream (the
            first one holds the role). A whole reply becomes the error, with its status.
        error: The error object of that frame: any of `message`, `type`, `param`, `code`. Default:
            what vLLM says for the code; code 500, "Internal server error".
        stall_after: Send nothing more after this many pieces of the body, and keep the connection
            open until the client leaves.
        keep_alive: Seconds after which an idle stream gets a comment, as with
            `--sse-keep-alive-interval`; comments don't count as pieces. Default: none.
        headers: Headers to add, such as `{"retry-after": "1"}`.
    """

    usage: ReplyUsage
    finish_reason: str
    stop_reason: int | str | None
    delay: float
    first_delay: float
    split: int
    cut_after: int
    reset: bool
    error_after: int
    error: Mapping[str, Any]
    stall_after: int
    keep_alive: float
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Chat:
    """What a model says, in the pieces in which it is streamed."""

    text: tuple[str, ...] = ()
    reasoning: tuple[str, ...] = ()
    calls: tuple[tuple[str, Arguments, str | None], ...] = ()


@dataclass(frozen=True)
class Fixed:
    """An answer that does not depend on the request."""

    status: int
    content_type: str
    body: bytes


@dataclass(frozen=True)
class Reply:
    """One scripted reply; made by `text`, `calls`, `reasoning`, `error`, `dead_engine` and `raw`.

    Every maker takes the keywords of `ReplyOptions`.
    """

    body: Chat | Fixed
    options: ReplyOptions = field(default_factory=ReplyOptions)
    kills: bool = False

    @classmethod
    def text(
        cls,
        text: str | None = None,
        *,
        chunks: Sequence[str] | None = None,
        **options: Unpack[ReplyOptions],
    ) -> Reply:
        """Answer with text.

        Args:
            text: The text; it is streamed word by word.
            chunks: The exact pieces to stream instead; without `text`, or making up the same.
            **options: See `ReplyOptions`.
        """
        if chunks is None:
            return cls(Chat(text=words(text or "")), _checked(options))
        if text is not None and text != "".join(chunks):
            raise UsageError("Reply.text was given a text and chunks that don't make it up.")
        return cls(Chat(text=tuple(chunks)), _checked(options))

    @classmethod
    def calls(
        cls,
        *calls: Call,
        text: str | Sequence[str] = "",
        reasoning: str | Sequence[str] = "",
        **options: Unpack[ReplyOptions],
    ) -> Reply:
        """Answer with tool calls.

        Args:
            *calls: Name and arguments, `("get_weather", {"city": "Rome"})`, and an id if it
                matters. Arguments given as text are sent as they are, broken JSON too, as a model
                may write it. A list of texts sets the pieces they are streamed in.
            text: What the model says before it calls; a list sets the pieces here, too.
            reasoning: What it thinks before that.
            **options: See `ReplyOptions`.
        """
        if not calls:
            raise UsageError('Reply.calls needs a call, such as ("get_weather", {"city": "Rome"}).')
        read = tuple(_read_call(call) for call in calls)
        return cls(Chat(pieces(text), pieces(reasoning), read), _checked(options))

    @classmethod
    def reasoning(
        cls,
        reasoning: str | Sequence[str],
        text: str | Sequence[str] = "",
        **options: Unpack[ReplyOptions],
    ) -> Reply:
        """Answer with reasoning and then text, as a server with a reasoning parser does.

        Args:
            reasoning: What the model thinks; a list sets the pieces it is streamed in.
            text: What it says then; the same.
            **options: See `ReplyOptions`.
        """
        return cls(Chat(pieces(text), pieces(reasoning)), _checked(options))

    @classmethod
    def error(
        cls,
        status: int,
        *,
        message: str | None = None,
        type: str | None = None,
        param: str | None = None,
        shape: Shape | None = None,
        body: bytes | str | None = None,
        **options: Unpack[ReplyOptions],
    ) -> Reply:
        """Answer with an error status.

        Args:
            status: The HTTP status.
            message: Default: vLLM's for the status, where it has one.
            type: The same.
            param: The parameter the error is about. Default `None`.
            shape: The form of the body: `"vllm"` (`{"error": {…}}`), `"string"`
                (`{"error": "…"}`), `"detail"`, `"anthropic"`, `"flat"` (vLLM up to 0.10.0),
                `"text"`, `"empty"`, or `"html"` (a proxy's page). Default: as vLLM has it for the
                status, `"string"` for 401 and `"vllm"` for the others.
            body: The whole body instead: JSON if it is that, else plain text.
            **options: See `ReplyOptions`.
        """
        if body is not None:
            data = body.encode() if isinstance(body, str) else body
            is_json = data.lstrip()[:1] in (b"{", b"[")
            content_type = "application/json" if is_json else "text/plain; charset=utf-8"
            return cls(Fixed(status, content_type, body=data), _checked(options))
        if status == 401 and shape is None and type is None:
            shape = "string"
        error = error_object(status, message, type, param)
        content_type, data = shaped(shape or "vllm", error)
        return cls(Fixed(status, content_type, body=data), _checked(options))

    @classmethod
    def context_overflow(
        cls, max_tokens: int = 8192, got: int = 8193, **options: Unpack[ReplyOptions]
    ) -> Reply:
        """Refuse the request because its prompt is longer than the model's context.

        Args:
            max_tokens: The context in tokens.
            got: What was counted of the prompt; the server stops at the first token too many.
            **options: See `ReplyOptions`.
        """
        message = overflow(max_tokens, got)
        return cls.error(400, message=message, param="input_tokens", **options)

    @classmethod
    def dead_engine(
        cls, *, text: str | Sequence[str] = "", **options: Unpack[ReplyOptions]
    ) -> Reply:
        """Answer as a server whose engine has died; from now on its `/health` is 503.

        Args:
            text: What a stream says before; the error frame follows it. A whole reply, and a
                stream without text, is an HTTP 500.
            **options: See `ReplyOptions`.
        """
        if not text:
            error = cls.error(500, message=DEAD_ENGINE, **options)
            return replace(error, kills=True)
        said = pieces(text)
        options.setdefault("error_after", 1 + len(said))
        options.setdefault("error", {"message": DEAD_ENGINE})
        return cls(Chat(text=said), _checked(options), kills=True)

    @classmethod
    def raw(
        cls,
        data: bytes,
        *,
        content_type: str = "text/event-stream; charset=utf-8",
        status: int = 200,
        **options: Unpack[ReplyOptions],
    ) -> Reply:
        """Answer with exactly these bytes.

        Args:
            data: The body.
            content_type: With an event stream, events are sent one by one and without a length.
            status: The HTTP status.
            **options: See `ReplyOptions`.
        """
        return cls(Fixed(status, content_type, body=data), _checked(options))

    @property
    def pacing(self) -> Pacing:
        """How the bytes are sent."""
        options = self.options
        return Pacing(
            delay=options.get("delay", 0.0),
            first_delay=options.get("first_delay"),
            split=options.get("split"),
            cut_after=options.get("cut_after"),
            reset=options.get("reset", False),
            stall_after=options.get("stall_after"),
            keep_alive=options.get("keep_alive"),
        )

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """The headers to add, their names in lower case."""
        headers = self.options.get("headers", {})
        return tuple((name.lower(), value) for name, value in headers.items())


def words(text: str) -> tuple[str, ...]:
    """Split text into words, each with the white space before it; nothing is lost."""
    pieces: list[str] = []
    start = 0
    for at in range(1, len(text)):
        if text[at].isspace() and not text[at - 1].isspace():
            pieces.append(text[start:at])
            start = at
    if text:
        pieces.append(text[start:])
    return tuple(pieces)


def pieces(text: str | Sequence[str]) -> tuple[str, ...]:
    """Give the pieces that text is streamed in: its words, or those that were given."""
    return words(text) if isinstance(text, str) else tuple(text)


def _read_call(call: Call) -> tuple[str, Arguments, str | None]:
    if isinstance(call, ToolCall):
        return call.name, call.arguments_json or (call.arguments or {}), call.id
    if len(call) == 2:
        return call[0], call[1], None
    return call


def _checked(options: ReplyOptions) -> ReplyOptions:
    unknown = set(options) - ReplyOptions.__optional_keys__
    if unknown:
        known = ", ".join(sorted(ReplyOptions.__optional_keys__))
        raise UsageError(f"A reply has no option {min(unknown)!r}; it has {known}.")
    if options.get("split", 1) < 1:
        raise UsageError("split is a number of bytes: 1 or more.")
    if options.get("keep_alive", 1) <= 0:
        raise UsageError("keep_alive is a number of seconds above 0.")
    if options.get("cut_after", 0) < -1:
        raise UsageError("cut_after is a number of bytes, or -1 for a cut before the head.")
    return options
