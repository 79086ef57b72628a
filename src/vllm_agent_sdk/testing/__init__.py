"""For users' own tests: a server that answers with scripted replies, in vLLM's own bytes."""

from vllm_agent_sdk.testing.chat_route import Script
from vllm_agent_sdk.testing.exchange import SimulatorRequest
from vllm_agent_sdk.testing.prefix import assert_prefix_stable
from vllm_agent_sdk.testing.reply import Call, Reply, ReplyOptions, ReplyUsage
from vllm_agent_sdk.testing.scripted import AgentScript, ScriptAnswer, ScriptedRun, scripted_run
from vllm_agent_sdk.testing.settings import SimulatorOptions
from vllm_agent_sdk.testing.simulator import Simulator

__all__ = [
    "AgentScript",
    "Call",
    "Reply",
    "ReplyOptions",
    "ReplyUsage",
    "Script",
    "ScriptAnswer",
    "ScriptedRun",
    "Simulator",
    "SimulatorOptions",
    "SimulatorRequest",
    "assert_prefix_stable",
    "scripted_run",
]
