"""`vllm-agent models`: what a server serves."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from vllm_agent_sdk import ModelInfo, ModelList
from vllm_agent_sdk.cli.client import client_of
from vllm_agent_sdk.cli.failure import FAILED, OK
from vllm_agent_sdk.cli.loop import Interrupts, run_loop
from vllm_agent_sdk.cli.options import Connection
from vllm_agent_sdk.cli.output import Output, printable

__all__ = ["models"]


def models(connection: Connection, as_json: bool, output: Output) -> int:
    """Run the command; its exit code.

    Raises:
        VLLMError: The server could not be asked.
    """

    async def main(_interrupts: Interrupts) -> int:
        async with client_of(connection) as client:
            output.wait(f"Asking {client.base_url}")
            found = await client.models.list()
        if as_json:
            output.line(found.raw.decode("utf-8", "replace"))
            return OK
        if not found.data:
            output.complain(f"The server at {client.base_url} serves no model.")
            return FAILED
        output.settle()
        if not output.shown.is_terminal:
            output.shown.width = 10_000  # a pipe has no width that a line would be cut to
        output.shown.print(_table(found))
        return OK

    return run_loop(main, output)


def _table(found: ModelList) -> Table:
    table = Table(box=None, padding=(0, 3, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("MODEL", overflow="fold")
    table.add_column("CONTEXT", justify="right", no_wrap=True)
    table.add_column("KIND", overflow="fold")
    table.add_column("ROOT", overflow="fold")
    alias_of = {alias: card.id for card in found.own_models() for alias in card.aliases}
    for card in found.data:
        context = "" if card.max_model_len is None else str(card.max_model_len)
        cells = (card.id, context, _kind(card, alias_of), card.root or "")
        table.add_row(*(Text(printable(cell)) for cell in cells))
    return table


def _kind(card: ModelInfo, alias_of: dict[str, str]) -> str:
    if card.parent is not None:
        return f"LoRA of {card.parent}"
    if card.id in alias_of:
        return f"alias of {alias_of[card.id]}"
    return "model"
