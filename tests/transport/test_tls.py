"""Real TLS: certificates are checked unless an explicit word says otherwise."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from vllm_agent_sdk import AsyncVLLM, HTTPOptions, RetryPolicy
from vllm_agent_sdk.errors import ConnectError, TransportError, UsageError
from vllm_agent_sdk.testing import Simulator

from .support import Authority, front, listening

pytestmark = pytest.mark.feature("C-03", "C-13")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@contextlib.asynccontextmanager
async def secured(
    authority: Authority, *names: str, clients: bool = False
) -> AsyncIterator[tuple[Simulator, str]]:
    """A simulator behind TLS, and its address."""
    context = authority.server(*(names or ("127.0.0.1",)), clients=clients)
    async with Simulator() as server, front(server.base_url, tls=context) as port:
        yield server, f"https://127.0.0.1:{port}/v1"


async def ask(url: str, **options: object) -> str:
    http = HTTPOptions(**options)  # type: ignore[arg-type]
    retry = RetryPolicy(max_attempts=1)
    async with AsyncVLLM(url, model="sim-model", http=http, retry=retry, api_key="k-123") as vllm:
        reply = await vllm.chat.completions.create(messages=[{"role": "user", "content": "Hi"}])
        async with vllm.chat.completions.stream(messages=[{"role": "user", "content": "Hi"}]) as s:
            assert await s.text() == reply.text
        return reply.text


async def test_a_certificate_of_an_unknown_authority_is_refused(authority: Authority) -> None:
    async with secured(authority) as (server, url):
        with pytest.raises(ConnectError, match=r"cannot be trusted: .*HTTPOptions\(ca=…\)") as e:
            await ask(url)
        assert "CERTIFICATE_VERIFY_FAILED" in e.value.message
        assert not e.value.retryable
        assert server.requests == []


async def test_an_authority_of_ones_own_is_trusted(authority: Authority) -> None:
    async with secured(authority) as (server, url):
        assert await ask(url, ca=authority.ca) == await ask(url, ca=str(authority.ca)) == "OK"
        assert len(server.chats) == 4


def hashed_name(certificate: Path) -> str:
    """The name that OpenSSL looks for in a folder of authorities."""
    said = subprocess.run(
        ["openssl", "x509", "-hash", "-noout", "-in", str(certificate)],
        check=True,
        capture_output=True,
        text=True,
    )
    return f"{said.stdout.strip()}.0"


@pytest.mark.skipif(not shutil.which("openssl"), reason="a folder of authorities needs openssl")
async def test_a_folder_of_authorities_is_trusted(authority: Authority, tmp_path: Path) -> None:
    folder = tmp_path / "authorities"
    folder.mkdir()
    shutil.copy(authority.ca, folder / hashed_name(authority.ca))
    async with secured(authority) as (_, url):
        assert await ask(url, ca=folder) == "OK"


async def test_an_authority_of_ones_own_stands_instead_of_others(
    authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other")
    async with secured(authority) as (_, url):
        with pytest.raises(ConnectError, match="cannot be trusted"):
            await ask(url, ca=other.ca)


async def test_a_certificate_for_another_name_is_refused(authority: Authority) -> None:
    async with secured(authority, "vllm.example") as (_, url):
        with pytest.raises(ConnectError, match=r"IP address mismatch"):
            await ask(url, ca=authority.ca)


async def test_the_check_is_off_only_by_verify_false(authority: Authority) -> None:
    async with secured(authority, "vllm.example") as (_, url):
        assert await ask(url, verify=False) == "OK"
    async with secured(authority, clients=True) as (_, url):
        assert await ask(url, verify=False, client_cert=authority.client()[0]) == "OK"


async def test_a_server_that_demands_a_certificate_gets_it(authority: Authority) -> None:
    one, two = authority.client()
    async with secured(authority, clients=True) as (_, url):
        assert await ask(url, ca=authority.ca, client_cert=one) == "OK"
        assert await ask(url, ca=authority.ca, client_cert=two) == "OK"


async def test_without_the_certificate_it_demands_there_is_no_reply(authority: Authority) -> None:
    async with secured(authority, clients=True) as (server, url):
        # TLS 1.3: its refusal comes when the client takes the connection for made.
        with pytest.raises(TransportError, match=r"demands a certificate.*client_cert=…"):
            await ask(url, ca=authority.ca)
        assert server.requests == []


async def test_https_to_a_server_without_tls_says_so() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()

    async with listening(answer) as port:
        with pytest.raises(ConnectError, match="No TLS with https://127"):
            await ask(f"https://127.0.0.1:{port}/v1")


# ── what cannot work is refused before anything is sent ──────────────────────────────────────────


def test_files_that_are_missing_are_named(tmp_path: Path) -> None:
    missing = tmp_path / "missing.pem"
    there = tmp_path / "there.pem"
    there.write_text("", encoding="utf-8")
    for options in (
        {"ca": missing},
        {"client_cert": str(missing)},
        {"client_cert": (there, missing)},
    ):
        with pytest.raises(UsageError, match=r"there is no '.*missing\.pem'"):
            HTTPOptions(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"verify": False, "ca": __file__}, "without a check no ca is used"),
        ({"verify": "/etc/ca.pem"}, "takes True or False"),
        ({"ca": 7}, "takes a path, not int"),
        ({"client_cert": (__file__,)}, "takes one file, or"),
        ({"client_cert": (__file__, None)}, "takes a path, not NoneType"),
    ],
)
def test_what_contradicts_itself_is_refused(options: dict[str, object], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        HTTPOptions(**options)  # type: ignore[arg-type]


async def test_files_without_a_certificate_are_named_by_the_first_call(
    authority: Authority, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("not a certificate", encoding="utf-8")
    for options in ({"ca": wrong}, {"client_cert": wrong}, {"client_cert": authority.ca}):
        with pytest.raises(UsageError, match=r"holds no certificate") as caught:
            await ask("https://127.0.0.1:9/v1", **options)
        assert str(next(iter(options.values()))) in caught.value.message


async def test_an_encrypted_key_is_an_error_and_never_a_question(
    authority: Authority, tmp_path: Path
) -> None:
    _, (cert, key) = authority.client()
    loaded = serialization.load_pem_private_key(key.read_bytes(), None)
    locked = tmp_path / "locked.pem"
    locked.write_bytes(
        loaded.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(UsageError, match=r"locked\.pem' is encrypted"):
        await ask("https://127.0.0.1:9/v1", client_cert=(cert, locked))
