"""A session's context: what fills it, what of it the server has cached, and making it shorter."""

from __future__ import annotations

from typing import Any

from typing_extensions import TypeVar

from vllm_agent_sdk._core.run.effects import compactable
from vllm_agent_sdk._core.run.run import evolve
from vllm_agent_sdk._core.run.state import State, replace
from vllm_agent_sdk.agent.model.context import context_usage, learn_window, summarise
from vllm_agent_sdk.agent.model.turns import Traits
from vllm_agent_sdk.agent.run.world import World
from vllm_agent_sdk.agent.session.rewind import SessionRewind
from vllm_agent_sdk.agent.session.runs import STILL, unsupported
from vllm_agent_sdk.client.vllm import AsyncVLLM
from vllm_agent_sdk.errors import HookError, VLLMError
from vllm_agent_sdk.types.context import CacheReport, CacheTurn, ContextUsage
from vllm_agent_sdk.types.events import Compacted
from vllm_agent_sdk.types.hooks import Block, Stop

__all__ = ["SessionContext"]

T = TypeVar("T", default=str)


class SessionContext(SessionRewind[T]):
    """What a session tells of its context, and `compact()`."""

    async def compact(self) -> Compacted:
        """Replace the older messages by a summary now, while no run is active.

        The newest prompt and what follows it stays, and so do the last `Context.keep_last`
        messages. The agent's `pre_compact` hooks run first. A run begun meanwhile waits.

        Returns:
            The event, with the summary and what it cost.

        Raises:
            UnsupportedControlError: A run is active or unfinished, or nothing is old enough.
            HookError: A hook forbids it.
            VLLMError: There is no summary: the server's error, or an `OutputError` for one that was
                cut or is empty. The messages stay as they are.
        """
        await self._active()
        self._opened()
        async with self._standing:
            if self._in_a_run:
                unsupported("compact", "a run is active or unfinished; interrupt() ends it")
            await self._flush()
            state = await self._next(replace(self._state, notes=()))
            count = compactable(state)
            if not count:
                unsupported("compact", "the newest prompt and Context.keep_last leave nothing")
            await self._ask_hooks()
            world, traits = self._world(), self._traits(state)
            window = state.window or await learn_window(world.client, state.model)
            state = replace(state, window=window, instruction=self._state.instruction)
            event = await summarise(world.endpoint, traits, state, count)
            self._opened()  # it may have been closed meanwhile
            await self._commit(event)
        if event.error is not None:
            raise event.error.to_exception()
        return event

    async def context_usage(self) -> ContextUsage:
        """Say what fills the model's window: of the next request, in tokens.

        The server counts exactly, by up to five requests to `/tokenize`; where it does not, all is
        estimated by bytes, and `exact` is False.

        Raises:
            VLLMError: No run has begun, and what one would send cannot be learnt of the server.
        """
        self._opened()
        state = await self._next(self._now)
        return await context_usage(self._world().client, self._traits(state), state)

    async def explain_cache(self) -> CacheReport:
        """Say what each model call of the session found in the server's prefix cache, and why.

        `report.explain()` says it in words. The block size and whether prefixes are cached at
        all are read from the server's `/metrics`; they are `None` where that does not answer.
        """
        self._opened()
        client = self._world().client
        block: int | None = None
        caching: bool | None = None
        if isinstance(client, AsyncVLLM):
            try:
                metrics = await client.server.metrics()
            except VLLMError:
                known = client.server.known_profile
                caching = None if known is None else known.prefix_caching.value
            else:
                caching = metrics.prefix_caching
                sizes = (each.labels.get("block_size", "") for each in metrics.samples)
                block = next((int(size) for size in sizes if size.isdecimal()), None)
        turns = tuple(self.cache_by_turn)
        return CacheReport(turns=turns, block_size=block, prefix_caching=caching)

    @property
    def cache_by_turn(self) -> list[CacheTurn]:
        """What each model call of the session found in the server's prefix cache, as far as known.

        `RunResult.cache_by_turn`, of all runs.
        """
        return self._now.cache.since(0)

    # ── what they need ───────────────────────────────────────────────────────────────────────────

    def _world(self) -> World:
        driver = self._driver_for(_nobody) if self._driver is None else self._driver
        return driver.world

    def _traits(self, state: State) -> Traits:
        world = self._world()
        return world.learnt.traits(world.client, state.model)

    async def _next(self, state: State) -> State:
        """Give how a run begins from here; where one is active or unfinished, how it stands."""
        if state.phase not in STILL:
            return state
        from vllm_agent_sdk.agent.run.opening import begun

        started, _ = await begun(self._agent, self._world(), [])
        return evolve(state, started)

    async def _ask_hooks(self) -> None:
        for spec, matcher in self._hooks_for("pre_compact", ""):
            for output in (await self._run_hook(spec, matcher)).outputs:
                if isinstance(output, (Block, Stop)):
                    raise HookError(f"{spec.name} forbids the summary: {output.reason}")


def _nobody(_event: Any) -> None:
    """Nothing is shown of a run that is only imagined."""
