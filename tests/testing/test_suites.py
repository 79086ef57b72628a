"""The suites that are exported for users' own parts: one shape, and no check is forgotten."""

from __future__ import annotations

import importlib
import inspect

import pytest

SUITES = {
    "store_contract": ("CHECKS",),
    "transport_contract": ("CHECKS", "CONNECTIONS"),
    "tool_contract": ("CHECKS",),
    "chat_model_contract": ("CHECKS", "FAILURES"),
}
PARTS = {
    "store_contract": ("snapshot_contract",),
    "transport_contract": ("transport_failures",),
}


@pytest.mark.feature("Q-03")
@pytest.mark.parametrize("name", SUITES)
def test_a_suite_has_every_check_once(name: str) -> None:
    suite = importlib.import_module(f"vllm_agent_sdk.testing.{name}")
    assert {"Check", *SUITES[name]} <= set(suite.__all__)
    checks = [check for part in SUITES[name] for check in getattr(suite, part)]
    assert len({check.__name__ for check in checks}) == len(checks)
    for module in (name, *PARTS.get(name, ())):
        written = importlib.import_module(f"vllm_agent_sdk.testing.{module}")
        public = [
            value
            for value in vars(written).values()
            if inspect.iscoroutinefunction(value)
            and value.__module__ == written.__name__
            and not value.__name__.startswith("_")
        ]
        assert public
        assert set(public) <= set(checks)
    assert all(inspect.getdoc(check) for check in checks)
