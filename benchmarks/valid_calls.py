"""How many tool calls are valid, and how many right, on a real server with its model.

`python -m benchmarks.valid_calls [--quick] [--show]`; quick asks every fifth question, show prints
the answers that are not right. The server is that of `VLLM_BASE_URL`, or one of its own with the
bundled model of 135 million parameters. Not in CI: what a model says differs between machines.

200 tools and questions: 10 kinds of tool and 20 values each, asked twice: with the one tool, and
with a second one of another kind beside it. All contenders get the same words and schemas, at
temperature 0, and one request a question. A call is *valid* if it names a tool that was offered
and its arguments are JSON that the schema takes, by a validator that is not ours, and *right* if
tool and arguments are the expected ones, upper and lower case aside. Replies that end at their
token limit are *cut*: a call that such a one holds is no call, and none of the two.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import jsonschema_rs

from benchmarks.measure import write

AT_ONCE = 8
MAX_TOKENS = 96
SERVER_ARGS = ("--enable-auto-tool-choice", "--tool-call-parser", "hermes")
SYSTEM = "Use the tools to answer."

TEXT = {"type": "string"}
WHOLE = {"type": "integer"}


@dataclass(frozen=True)
class Kind:
    """A kind of tool, its question, and the arguments that answer it."""

    name: str
    description: str
    properties: dict[str, Any]
    question: str
    values: list[dict[str, Any]]

    @property
    def schema(self) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": self.properties,
            "required": list(self.properties),
            "additionalProperties": False,
        }


@dataclass(frozen=True)
class Question:
    """One question, the tools that are offered, and the call that is right."""

    text: str
    tools: tuple[Kind, ...]
    name: str
    arguments: dict[str, Any]


#: What was called, tool and arguments as JSON text for each call; `None` where the reply was cut.
Called = list[tuple[str, str]] | None
Asked = Callable[[Question], Awaitable[Called]]


def _each(name: str, texts: str) -> list[dict[str, Any]]:
    return [{name: _value(text)} for text in texts.split(",")]


def _pairs(first: str, second: str, texts: str) -> list[dict[str, Any]]:
    pairs = [text.split(":") for text in texts.split(",")]
    return [{first: _value(one), second: _value(other)} for one, other in pairs]


def _value(text: str) -> str | int:
    text = text.strip()
    return int(text) if text.isdigit() else text


LANGUAGES = ["French", "German", "Spanish", "Italian"]
CURRENCIES = ["USD", "GBP", "JPY", "CHF"]
KINDS = (
    Kind(
        "get_weather", "Get the weather of a city", {"city": TEXT},
        "What is the weather in {city}?",
        _each("city", "Paris, Rome, Oslo, Madrid, Berlin, Vienna, Athens, Dublin, Lisbon, Prague, "
              "Tokyo, Cairo, Boston, Chicago, Toronto, Sydney, Milan, Warsaw, Seoul, Lima"),
    ),
    Kind(
        "get_price", "Get the price of a product", {"product": TEXT},
        "What does a {product} cost?",
        _each("product", "lamp, chair, table, phone, laptop, camera, bicycle, book, pen, shirt, "
              "hat, watch, mirror, pillow, kettle, knife, bottle, guitar, ball, sofa"),
    ),
    Kind(
        "get_population", "Get the number of people in a country", {"country": TEXT},
        "How many people live in {country}?",
        _each("country", "France, Spain, Italy, Norway, Japan, China, India, Brazil, Canada, "
              "Mexico, Egypt, Kenya, Peru, Chile, Poland, Greece, Turkey, Sweden, Ireland, Cuba"),
    ),
    Kind(
        "find_books", "Find the books of an author", {"author": TEXT},
        "Which books did {author} write?",
        _each("author", "Jane Austen, Mark Twain, Franz Kafka, Charles Dickens, Leo Tolstoy, "
              "George Orwell, Virginia Woolf, Oscar Wilde, Jules Verne, Victor Hugo, Homer, Dante, "
              "Stephen King, Agatha Christie, Ernest Hemingway, James Joyce, Toni Morrison, "
              "Albert Camus, Isaac Asimov, Emily Bronte"),
    ),
    Kind(
        "set_timer", "Set a timer", {"minutes": WHOLE},
        "Set a timer for {minutes} minutes.",
        _each("minutes", "2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 18, 20, 25, 30, 35, 40, 45, 50, 90"),
    ),
    Kind(
        "add", "Add two numbers", {"a": WHOLE, "b": WHOLE},
        "What is {a} plus {b}?",
        _pairs("a", "b", "1:2, 2:5, 3:4, 7:8, 9:6, 10:20, 12:30, 15:16, 21:4, 33:44, 50:60, 71:19, "
               "80:15, 99:1, 100:200, 123:45, 250:250, 300:7, 512:88, 640:360"),
    ),
    Kind(
        "switch_light", "Switch the light in a room on or off",
        {"room": TEXT, "state": {"type": "string", "enum": ["on", "off"]}},
        "Switch {state} the light in the {room}.",
        _pairs("room", "state", "kitchen:on, bathroom:off, bedroom:on, garage:off, office:on, "
               "hall:off, cellar:on, attic:off, garden:on, library:off, kitchen:off, bathroom:on, "
               "bedroom:off, garage:on, office:off, hall:on, cellar:off, attic:on, garden:off, "
               "library:on"),
    ),
    Kind(
        "convert_to_euro", "Convert money to euro",
        {"amount": WHOLE, "currency": {"type": "string", "enum": CURRENCIES}},
        "How much is {amount} {currency} in euro?",
        _pairs("amount", "currency", "5:USD, 10:GBP, 20:JPY, 25:CHF, 30:USD, 40:GBP, 50:JPY, "
               "60:CHF, 75:USD, 80:GBP, 100:JPY, 120:CHF, 150:USD, 200:GBP, 250:JPY, 300:CHF, "
               "500:USD, 750:GBP, 1000:JPY, 9:CHF"),
    ),
    Kind(
        "translate", "Translate a word",
        {"word": TEXT, "language": {"type": "string", "enum": LANGUAGES}},
        "Translate the word {word} into {language}.",
        _pairs("word", "language", "house:French, tree:German, water:Spanish, bread:Italian, "
               "friend:French, summer:German, night:Spanish, morning:Italian, mother:French, "
               "school:German, flower:Spanish, window:Italian, river:French, mountain:German, "
               "horse:Spanish, apple:Italian, street:French, music:German, winter:Spanish, "
               "bird:Italian"),
    ),
    Kind(
        "set_temperature", "Set the temperature of a room",
        {"room": TEXT, "celsius": WHOLE},
        "Set the {room} to {celsius} degrees.",
        _pairs("room", "celsius", "kitchen:19, bathroom:23, bedroom:17, garage:12, office:21, "
               "hall:18, cellar:10, attic:16, library:20, studio:22, kitchen:21, bathroom:25, "
               "bedroom:16, garage:8, office:20, hall:15, cellar:11, attic:14, library:19, "
               "studio:24"),
    ),
)  # fmt: skip


def questions(offered: int) -> list[Question]:
    """Give all of them, with one tool or two; the second one's kind and place take turns."""
    asked = []
    for at, kind in enumerate(KINDS):
        for number, arguments in enumerate(kind.values):
            other = KINDS[(at + 1 + number % (len(KINDS) - 1)) % len(KINDS)]
            tools = (kind, other) if number % 2 else (other, kind)
            if offered == 1:
                tools = (kind,)
            asked.append(Question(kind.question.format(**arguments), tools, kind.name, arguments))
    return asked


def is_valid(question: Question, name: str, text: str) -> bool:
    """True if a call names a tool that was offered and its schema takes the arguments."""
    schemas = {kind.name: kind.schema for kind in question.tools}
    try:
        arguments = json.loads(text)
    except ValueError:
        return False
    return name in schemas and jsonschema_rs.is_valid(schemas[name], arguments)


def is_right(question: Question, name: str, text: str) -> bool:
    """True if a call is the expected one."""
    if not is_valid(question, name, text):
        return False
    return name == question.name and _folded(json.loads(text)) == _folded(question.arguments)


def _folded(arguments: dict[str, Any]) -> dict[str, Any]:
    return {k: v.strip().casefold() if isinstance(v, str) else v for k, v in arguments.items()}


# ── the contenders ───────────────────────────────────────────────────────────────────────────────


def ours(client: Any) -> Asked:
    """Our agent, one turn of it."""
    from vllm_agent_sdk import Agent, Limits, Sampling, tool

    async def done(arguments: dict[str, Any]) -> str:
        return "done"

    async def ask(question: Question) -> Called:
        tools = [tool(kind.name, kind.description, kind.schema)(done) for kind in question.tools]
        agent: Agent[None, str] = Agent(
            client=client,
            instructions=SYSTEM,
            tools=tools,
            turn_mode="guided",
            sampling=Sampling(temperature=0, max_tokens=MAX_TOKENS),
            limits=Limits(max_turns=1),
        )
        result = await agent.run(question.text)
        if result.finish_reason == "length":
            return None
        calls = [call for message in result.messages for call in getattr(message, "tool_calls", ())]
        return [(call.name, call.arguments_json) for call in calls]

    return ask


def openai_sdk(client: Any, model: str, tool_choice: str) -> Asked:
    """The OpenAI SDK with strict tools."""

    async def ask(question: Question) -> Called:
        tools = [
            {
                "type": "function",
                "function": {
                    "name": kind.name,
                    "description": kind.description,
                    "parameters": kind.schema,
                    "strict": True,
                },
            }
            for kind in question.tools
        ]
        reply = await client.chat.completions.create(
            model=model,
            messages=[
                {"role": "system", "content": SYSTEM},
                {"role": "user", "content": question.text},
            ],
            tools=tools,
            tool_choice=tool_choice,
            temperature=0,
            max_tokens=MAX_TOKENS,
        )
        if reply.choices[0].finish_reason == "length":
            return None
        calls = reply.choices[0].message.tool_calls or []
        return [(call.function.name, call.function.arguments) for call in calls]

    return ask


# ── measuring ────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Tally:
    """What came of the questions.

    Attributes:
        questions: How many were asked.
        cut: Those whose reply was cut.
        called: Those that were answered by a call.
        valid: Those where each call is valid.
        right: Those where the first call is the expected one.
        right_one: Those of them whose tool has one argument (half of the questions),
        right_two: and those whose tool has two.
    """

    questions: int = 0
    cut: int = 0
    called: int = 0
    valid: int = 0
    right: int = 0
    right_one: int = 0
    right_two: int = 0

    def add(self, question: Question, called: Called) -> None:
        """Count one answer."""
        self.questions += 1
        self.cut += called is None
        if called:
            self.called += 1
            self.valid += all(is_valid(question, name, text) for name, text in called)
            right = is_right(question, *called[0])
            self.right += right
            self.right_one += right and len(question.arguments) == 1
            self.right_two += right and len(question.arguments) == 2


async def tally(name: str, ask: Asked, asked: list[Question]) -> Tally:
    """Ask all questions, a few at a time."""
    slots, found = asyncio.Semaphore(AT_ONCE), Tally()

    async def one(question: Question) -> Called:
        async with slots:
            return await ask(question)

    answers = await asyncio.gather(*(one(question) for question in asked))
    for question, called in zip(asked, answers, strict=True):
        found.add(question, called)
        if "--show" in sys.argv and not (called and is_right(question, *called[0])):
            print(f"  {name}: {question.text} {called}")
    return found


async def measure(base_url: str) -> list[dict[str, Any]]:
    """Ask everybody everything; give the results."""
    import openai

    from vllm_agent_sdk import AsyncVLLM

    results = []
    key = os.environ.get("VLLM_API_KEY", "none")
    async with (
        AsyncVLLM(base_url) as vllm,
        openai.AsyncOpenAI(base_url=vllm.base_url, api_key=key) as sdk,
    ):
        model = await vllm.resolve_model()
        contenders = {
            "ours": ours(vllm),
            "openai, strict, auto": openai_sdk(sdk, model, "auto"),
            "openai, strict, required": openai_sdk(sdk, model, "required"),
        }
        for offered, what in ((1, "one tool"), (2, "two tools")):
            asked = questions(offered)[:: 5 if "--quick" in sys.argv else 1]
            tallies = {name: await tally(name, ask, asked) for name, ask in contenders.items()}
            results.append(reported(f"{what} offered, {model}", tallies))
    return results


def reported(name: str, tallies: dict[str, Tally]) -> dict[str, Any]:
    """Print a table; give it, and whether the goals are reached."""
    print(f"\n{name:28} questions      cut   called    valid    right  (1 arg,  2 args)")
    for contender, each in tallies.items():
        counts = (each.cut, each.called, each.valid, each.right, each.right_one, each.right_two)
        print(f"  {contender:26} {each.questions:9}" + "".join(f"{n:9}" for n in counts))
    return {"name": name, "tallies": {who: vars(each) for who, each in tallies.items()}}


async def run() -> list[dict[str, Any]]:
    """Measure on the server that is named, or on one of its own."""
    base_url = os.environ.get("VLLM_BASE_URL")
    if base_url:
        return await measure(base_url)
    from vllm_agent_sdk.local import LocalServer

    async with LocalServer(args=SERVER_ARGS) as server:
        return await measure(server.base_url)


def main() -> None:
    """Measure and print."""
    write("valid_calls", asyncio.run(run()))


if __name__ == "__main__":
    main()
