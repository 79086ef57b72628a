"""What `HTTPOptions` says of certificates, as a context of the standard library."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from vllm_agent_sdk.errors import UsageError
from vllm_agent_sdk.types.options import HTTPOptions

__all__ = ["tls_context"]


def tls_context(options: HTTPOptions) -> ssl.SSLContext | bool:
    """Give the context for TLS; a bool where the HTTP library's own default, on or off, will do.

    It reads files: not for the loop.

    Raises:
        UsageError: A file holds no certificate or key that can be used; it is named.
    """
    if options.ca is None and options.client_cert is None:
        return options.verify
    context = _trusting(options)
    if not options.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    files = options.cert_files()
    if files:
        names = " and ".join(repr(os.fspath(file)) for file in files)

        def locked() -> str:
            raise UsageError(
                f"HTTPOptions(client_cert=…): the key in {names} is encrypted; decrypt it."
            )

        try:
            context.load_cert_chain(files[0], files[1] if files[1:] else None, password=locked)
        except OSError as cause:
            raise UsageError(
                f"HTTPOptions(client_cert=…): {names} holds no certificate with its key in PEM "
                f"({_why(cause)})."
            ) from cause
    return context


def _trusting(options: HTTPOptions) -> ssl.SSLContext:
    if options.ca is None:
        return ssl.create_default_context()
    folder = Path(options.ca).is_dir()
    try:
        if folder:
            return ssl.create_default_context(capath=options.ca)
        return ssl.create_default_context(cafile=options.ca)
    except OSError as cause:
        raise UsageError(
            f"HTTPOptions(ca=…): {os.fspath(options.ca)!r} holds no certificate in PEM "
            f"({_why(cause)})."
        ) from cause


def _why(cause: OSError) -> str:
    return cause.strerror or str(cause)
