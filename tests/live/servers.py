"""The live servers: what each is started with, and the files they are given.

- **A**, full: tools (hermes), the Responses store, dev mode, LoRA, priorities, request ids.
- **B**, bare: no tool flags, a key, a template that insists on strict alternation, reasoning, a
  keep-alive of one second.
- **C**, pooling: embeddings, score, rerank.

They run in an event loop of their own, on a thread: each test has a loop of its own, a server lasts
for the session.
"""

from __future__ import annotations

import array
import asyncio
import json
import os
import random
import threading
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vllm_agent_sdk.local import LocalServer
from vllm_agent_sdk.local._cache import Cache
from vllm_agent_sdk.local._command import BUNDLED_NAME
from vllm_agent_sdk.local._progress import Progress
from vllm_agent_sdk.local._provision import Provisioner
from vllm_agent_sdk.local._vllm import find_vllm

NAMES = ("A", "B", "C")
KEY = "secret"
LAYERS, HIDDEN, RANK = 30, 576, 8

FULL_ARGS = [
    *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
    *("--enable-prompt-tokens-details", "--enable-request-id-headers"),
    *("--scheduling-policy", "priority", "--enable-lora", "--max-lora-rank", "8"),
    "--trust-request-chat-template",
]
FULL_ENV = {
    "VLLM_SERVER_DEV_MODE": "1",
    "VLLM_ENABLE_RESPONSES_API_STORE": "1",
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
}
SMALL_ARGS = [
    *("--served-model-name", BUNDLED_NAME, "--enforce-eager", "--dtype", "float32"),
    *("--max-num-seqs", "16", "--max-model-len", "4096"),
]
STRICT_TEMPLATE = """\
{%- if not messages or messages[0].role != 'system' -%}
{{ raise_exception('The first message must have the role system.') }}
{%- endif -%}
{%- for message in messages -%}
{%- if not loop.first and (message.role == 'user') != (loop.index0 % 2 == 1) -%}
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
{%- endif -%}
{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking -%}
{{ '<think>\\n' }}
{%- endif -%}
{%- endif -%}
"""


@dataclass(frozen=True, slots=True)
class LiveServer:
    """A running server, as tests see it.

    Attributes:
        name: `"A"`, `"B"` or `"C"`.
        base_url: With `/v1`.
        api_key: The key it demands, or `None`.
        model: The name it serves.
        log_path: Its log.
        lora_path: The folder of an adapter it can load (A only).
    """

    name: str
    base_url: str
    api_key: str | None
    model: str
    log_path: Path
    lora_path: Path | None = None


# ── files ────────────────────────────────────────────────────────────────────────────────────────


def make_lora(folder: Path) -> Path:
    """An adapter that visibly changes what the bundled model says."""
    folder.mkdir()
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": BUNDLED_NAME,
        "r": RANK,
        "lora_alpha": 16,
        "target_modules": ["q_proj"],
        "bias": "none",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    chance = random.Random(1)
    header: dict[str, Any] = {}
    floats = array.array("f")
    for layer in range(LAYERS):
        for part, shape in (("A", [RANK, HIDDEN]), ("B", [HIDDEN, RANK])):
            begin = len(floats) * 4
            floats.extend(chance.gauss(0.0, 0.3) for _ in range(RANK * HIDDEN))
            header[f"base_model.model.model.layers.{layer}.self_attn.q_proj.lora_{part}.weight"] = {
                "dtype": "F32",
                "shape": shape,
                "data_offsets": [begin, len(floats) * 4],
            }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    data = len(text).to_bytes(8, "little") + text + floats.tobytes()
    (folder / "adapter_model.safetensors").write_bytes(data)
    return folder


def make_thinking_model(weights: Path, folder: Path) -> Path:
    """The bundled model with `<think>` and `</think>` as tokens in place of two unused ones."""
    folder.mkdir()
    for file in weights.iterdir():
        if file.name != "tokenizer.json":
            (folder / file.name).symlink_to(file)
    tokenizer = json.loads((weights / "tokenizer.json").read_text(encoding="utf-8"))
    names = {"<jupyter_script>": "<think>", "<empty_output>": "</think>"}
    for token in tokenizer["added_tokens"]:
        if token["content"] in names:
            token["content"] = names[token["content"]]
            token["special"] = False
    vocabulary = tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"] = {names.get(k, k): v for k, v in vocabulary.items()}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    return folder


# ── servers ──────────────────────────────────────────────────────────────────────────────────────


class LiveServers:
    """Starts servers side by side at the first need, and keeps them to the end."""

    def __init__(self, files: Path) -> None:
        self._files = files
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="live-servers")
        self._stack = AsyncExitStack()
        self._weights: Future[Path] | None = None
        self._started: dict[str, Future[LiveServer]] = {}
        self._thread.start()

    def provide(self) -> Path:
        """Provision vLLM and the model where they are missing; the model's folder.

        Raises:
            LocalServerError: There can be no real server here.
        """
        if self._weights is None:
            self._weights = asyncio.run_coroutine_threadsafe(self._provide(), self._loop)
        return self._weights.result()

    def get(self, name: str, needed: Iterable[str]) -> LiveServer:
        """The server of this name; all that are needed are started with the first."""
        self.provide()
        for one in {name, *needed}:
            if one not in self._started:
                starting = asyncio.run_coroutine_threadsafe(self._start(one), self._loop)
                self._started[one] = starting
        return self._started[name].result()

    def close(self) -> None:
        """End all servers."""
        # What is still installing or starting is ended by the cancellation.
        for future in (self._weights, *self._started.values()):
            if future is not None:
                future.cancel()
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await self._stack.aclose()
        await asyncio.gather(*others, return_exceptions=True)

    @staticmethod
    async def _provide() -> Path:
        provisioner = Provisioner(Cache.default(), Progress())
        return await provisioner.model(find_vllm() or await provisioner.vllm())

    async def _start(self, name: str) -> LiveServer:
        lora = None
        if name == "A":
            lora = await asyncio.to_thread(make_lora, self._files / "lora")
            server = LocalServer(args=FULL_ARGS, env=FULL_ENV)
        elif name == "B":
            server = await asyncio.to_thread(self._bare)
        else:
            args = ["--max-model-len", "2048", "--runner", "pooling", "--convert", "embed"]
            server = LocalServer(args=args)
        await self._stack.enter_async_context(server)
        key = server.api_key
        return LiveServer(name, server.base_url, key, server.model, server.log_path, lora)

    def _bare(self) -> LocalServer:
        model = make_thinking_model(self.provide_now(), self._files / "smolthink")
        template = self._files / "strict.jinja"
        template.write_text(STRICT_TEMPLATE, encoding="utf-8")
        args = [*SMALL_ARGS, "--chat-template", str(template)]
        args += ["--reasoning-parser", "qwen3"]
        args += ["--default-chat-template-kwargs", '{"enable_thinking": false}']
        env = {"VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
        return LocalServer(model=model, args=args, env=env, api_key=KEY)

    def provide_now(self) -> Path:
        """The model's folder, which is there once any server starts."""
        assert self._weights is not None
        return self._weights.result(0)


def required() -> bool:
    """Whether a missing server is a failure (in CI) and no reason to skip."""
    return os.environ.get("VLLM_AGENT_REQUIRE_LIVE", "") not in ("", "0")
