"""The command line, `vllm-agent`. Its libraries come with the extra `[cli]`."""

from __future__ import annotations

import sys

__all__ = ["main"]

_LIBRARIES = ("cyclopts", "prompt_toolkit", "rich")


def main() -> int:
    """Run the command that `sys.argv` names; its exit code."""
    try:
        # Here, so that a program without the extra gets a sentence and no traceback.
        from vllm_agent_sdk.cli.app import start
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _LIBRARIES:
            raise
        sys.stderr.write(
            f"vllm-agent needs {error.name}, which comes with the extra [cli]: "
            "pip install 'vllm-agent-sdk[cli]'\n"
        )
        return 2
    except KeyboardInterrupt:
        return 130
    return start(sys.argv[1:])
