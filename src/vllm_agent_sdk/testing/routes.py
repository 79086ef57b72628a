"""The routes that generate nothing: models, tokens, version, health, load; and what is no route."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from vllm_agent_sdk.testing import checks, wire
from vllm_agent_sdk.testing.exchange import Answer, SimulatorRequest, json_answer
from vllm_agent_sdk.testing.fields import FieldCheck, table
from vllm_agent_sdk.testing.openapi import openapi
from vllm_agent_sdk.testing.responses_route import PATH, ResponsesRoute
from vllm_agent_sdk.testing.settings import Settings
from vllm_agent_sdk.testing.tokens import Prompts

__all__ = ["Route", "Routes"]

Route: TypeAlias = Callable[[SimulatorRequest], Answer | Awaitable[Answer]]

_GUARDED = ("/v1", "/v2", "/inference", "/cohere")


class Routes:
    """Finds who answers a request.

    Args:
        settings: How the server was started.
        prompts: How it counts.
        fields: What requests are held against.
        chat: What answers chat requests.
        completions: What answers completions.
        responses: What answers requests under `/v1/responses`.
        healthy: Says whether the server is.
        running: Says how many requests for something generated are being answered.
    """

    def __init__(
        self,
        settings: Settings,
        prompts: Prompts,
        fields: FieldCheck,
        *,
        chat: Route,
        completions: Route,
        responses: ResponsesRoute,
        healthy: Callable[[], bool],
        running: Callable[[], int],
    ) -> None:
        self._settings = settings
        self._prompts = prompts
        self._fields = fields
        self._healthy = healthy
        self._running = running
        self._responses = responses
        self._routes: dict[str, dict[str, Route]] = {
            "/v1/chat/completions": {"POST": chat},
            "/v1/completions": {"POST": completions},
            PATH: {"POST": responses.answer},
            "/v1/models": {"GET": self._models},
            "/tokenize": {"POST": self._tokenize},
            "/detokenize": {"POST": self._detokenize},
            "/version": {"GET": self._version},
            "/health": {"GET": self._health},
            "/ping": {"GET": self._health, "POST": self._health},
            "/load": {"GET": self._load},
            "/openapi.json": {"GET": self._openapi},
            "/metrics": {"GET": self._metrics},
        }

    def answer(self, request: SimulatorRequest) -> Answer | Awaitable[Answer]:
        """Give the answer, or what will give it."""
        if request.path.startswith(_GUARDED) and not self._authorised(request):
            return json_answer(401, {"error": "Unauthorized"})
        routes = self._routes.get(request.path) or self._responses.about(request.path)
        if routes is None:
            return json_answer(404, {"detail": "Not Found"})
        route = routes.get(request.method)
        if route is None:
            allowed = ", ".join(routes)
            return json_answer(405, {"detail": "Method Not Allowed"}, [("allow", allowed)])
        try:
            return route(request)
        except checks.RefusedError as refused:
            return refused.answer

    def _authorised(self, request: SimulatorRequest) -> bool:
        key = self._settings.api_key
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        return key is None or (scheme.lower() == "bearer" and given == key)

    def _models(self, request: SimulatorRequest) -> Answer:
        permission = {
            "id": "modelperm-0000000000000000",
            "object": "model_permission",
            "created": wire.CREATED,
            "allow_create_engine": False,
            "allow_sampling": True,
            "allow_logprobs": True,
            "allow_search_indices": False,
            "allow_view": True,
            "allow_fine_tuning": False,
            "organization": "*",
            "group": None,
            "is_blocking": False,
        }
        card = {
            "id": self._settings.model,
            "object": "model",
            "created": wire.CREATED,
            "owned_by": "vllm",
            "root": self._settings.model,
            "parent": None,
            "max_model_len": self._settings.max_model_len,
            "permission": [permission],
        }
        return json_answer(200, {"object": "list", "data": [card]})

    def _tokenize(self, request: SimulatorRequest) -> Answer:
        body = checks.read_body(request)
        self._fields.check(request.method, request.path, body)
        checks.check_model(body, self._settings.model)
        if isinstance(body.get("prompt"), str):
            ids = self._prompts.vocabulary.encode(body["prompt"])
        else:
            ids = self._prompts.of_chat(body["messages"], body.get("tools"))
        strings = [self._prompts.vocabulary.word(id_) for id_ in ids]
        answer = {
            "count": len(ids),
            "max_model_len": self._settings.max_model_len,
            "tokens": ids,
            "token_strs": strings if body.get("return_token_strs") else None,
        }
        return json_answer(200, answer)

    def _detokenize(self, request: SimulatorRequest) -> Answer:
        body = checks.read_body(request)
        self._fields.check(request.method, request.path, body)
        checks.check_model(body, self._settings.model)
        return json_answer(200, {"prompt": self._prompts.vocabulary.decode(body["tokens"])})

    def _version(self, request: SimulatorRequest) -> Answer:
        return json_answer(200, {"version": self._settings.version})

    def _health(self, request: SimulatorRequest) -> Answer:
        return Answer(200 if self._healthy() else 503, (), ())

    def _load(self, request: SimulatorRequest) -> Answer:
        return json_answer(200, {"server_load": self._running()})

    def _openapi(self, request: SimulatorRequest) -> Answer:
        methods = {path: tuple(routes) for path, routes in self._routes.items()}
        return json_answer(200, openapi(table(), methods, self._settings.version))

    def _metrics(self, request: SimulatorRequest) -> Answer:
        gauges = {
            "num_requests_running": (
                "Number of requests in model execution batches.",
                self._running(),
            ),
            "num_requests_waiting": ("Number of requests waiting to be processed.", 0),
            "kv_cache_usage_perc": ("KV-cache usage. 1 means 100 percent usage.", 0),
        }
        lines: list[str] = []
        for name, (text, value) in gauges.items():
            lines += [f"# HELP vllm:{name} {text}", f"# TYPE vllm:{name} gauge"]
            labels = f'engine="0",model_name="{self._settings.model}"'
            lines.append(f"vllm:{name}{{{labels}}} {float(value)}")
        headers = (("content-type", "text/plain; version=1.0.0; charset=utf-8"),)
        return Answer(200, headers, (("\n".join(lines) + "\n").encode(),))
