"""Random ids are new in every call, thread and process."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from vllm_agent_sdk import _ids


def test_ids_are_new_and_have_the_digits_that_were_asked_for() -> None:
    ids = [_ids.random_hex() for _ in range(3000)]
    assert len(set(ids)) == 3000
    assert {len(each) for each in ids} == {32}
    assert [len(_ids.random_hex(digits)) for digits in (16, 24)] == [16, 24]
    assert all(each == bytes.fromhex(each).hex() for each in ids)


def test_threads_draw_different_ids() -> None:
    drawn: list[str] = []
    threads = [
        threading.Thread(target=lambda: drawn.extend(_ids.random_hex() for _ in range(1000)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(drawn)) == 8000


FORKED = """
import os
from vllm_agent_sdk import _ids

_ids.random_hex()  # there is a supply, which the child inherits
reads, writes = os.pipe()
if os.fork() == 0:
    os.write(writes, "".join(_ids.random_hex() for _ in range(100)).encode())
    os._exit(0)
os.wait()
os.close(writes)
text = os.fdopen(reads).read()
drawn = {text[at : at + 32] for at in range(0, len(text), 32)}
print(len(drawn), len(drawn & {_ids.random_hex() for _ in range(1000)}))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
def test_a_forked_process_does_not_draw_what_its_parent_draws() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKED], check=True, timeout=30, capture_output=True, text=True
    )
    assert done.stdout == "100 0\n"
