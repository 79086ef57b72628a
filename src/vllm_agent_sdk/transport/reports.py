"""Telling facts to a recorder that may fail."""

from __future__ import annotations

import logging
from collections.abc import Callable

from vllm_agent_sdk.telemetry.recorder import Recorder, ServerFact

__all__ = ["reporter"]

_log = logging.getLogger("vllm_agent_sdk.telemetry")


def reporter(recorder: Recorder | None) -> Callable[[ServerFact], None] | None:
    """Give what tells a recorder a fact; its first failure is logged, none reaches the call."""
    if recorder is None:
        return None
    failed = False

    def report(fact: ServerFact) -> None:
        nonlocal failed
        try:
            recorder.record(fact)
        except Exception:  # noqa: BLE001 - whatever a user's recorder raises
            if not failed:
                failed = True
                _log.warning(
                    "The telemetry recorder failed; the call goes on. Further failures are not "
                    "logged.",
                    exc_info=True,
                )

    return report
