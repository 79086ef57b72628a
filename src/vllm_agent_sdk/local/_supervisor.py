"""The process that owns one server's processes and outlives whoever started it.

Run by its path (`python -I -S _supervisor.py OPTIONS COMMAND …`), never imported: it is small,
uses the standard library alone, and starts the command in a session of its own. Each process that
uses the server holds one connection to it; the law is that no process of the server is left when
the last of them is gone, however it went.

1. The first user's connection is the socket whose number is in OPTIONS; with `socket` others
   connect there. A user is gone when its connection closes or when its process dies (a fork of it
   may hold the connection open for longer).
2. `grace_s` seconds after the last user is gone the command's processes are ended. `stop` from the
   only user ends them at once.
3. Ended means: SIGTERM to the group and to every descendant, whatever its session, then SIGKILL
   after `stop_s` seconds. As a subreaper this process inherits orphans, so none is lost sight of.
4. To its users it sends JSON lines: `hello`, `failed`, `exited` (the command ended), `ended`
   (nothing of it is left).
"""

import contextlib
import ctypes
import json
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import time
from typing import Any

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
POLL_S = 0.05
GIVE_UP_S = 15.0
LINUX = sys.platform == "linux"


def _prctl(option: int, value: int) -> None:
    # A Python without ctypes' library still ends its own group; only the extra net is missing.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _stat(pid: int) -> tuple[str, int] | None:
    """State and parent of a process, or `None` if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return fields[0].decode(), int(fields[1])


def descendants(root: int) -> list[int]:
    """Every living process below `root`, zombies left out (Linux; elsewhere none)."""
    if not LINUX:
        return []
    children: dict[int, list[int]] = {}
    dead: set[int] = set()
    for name in os.listdir("/proc"):
        if name.isdigit() and (fact := _stat(int(name))) is not None:
            children.setdefault(fact[1], []).append(int(name))
            if fact[0] in "ZX":
                dead.add(int(name))
    found: list[int] = []
    todo = [root]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return [pid for pid in found if pid not in dead]


class Supervisor:
    """One command, its processes and its users."""

    def __init__(self, options: dict[str, Any], command: list[str]) -> None:
        self.options = options
        self.command = command
        self.selector = selectors.DefaultSelector()
        self.users: dict[socket.socket, int | None] = {}
        self.listener: socket.socket | None = None
        self.main = 0
        self.code: int | None = None
        self.stopping = False
        self.alone_since = time.monotonic()

    # ── users ────────────────────────────────────────────────────────────────────────────────────

    def add(self, user: socket.socket) -> None:
        """Take a connection as one user."""
        watch: int | None = None
        if LINUX:
            credentials = user.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            pid, uid, _ = struct.unpack("3i", credentials)
            if uid not in {os.geteuid(), 0}:
                user.close()
                return
            # pid 0 is a process of another namespace: its connection alone has to do.
            with contextlib.suppress(OSError, AttributeError):
                watch = os.pidfd_open(pid) if pid else None
        user.setblocking(True)
        user.settimeout(2.0)
        self.users[user] = watch
        self.selector.register(user, selectors.EVENT_READ, lambda: self.read(user))
        if watch is not None:
            self.selector.register(watch, selectors.EVENT_READ, lambda: self.drop(user))

    def drop(self, user: socket.socket) -> None:
        """Forget a user that is gone."""
        if user not in self.users:
            return
        watch = self.users.pop(user)
        self.selector.unregister(user)
        user.close()
        if watch is not None:
            self.selector.unregister(watch)
            os.close(watch)
        if not self.users:
            self.alone_since = time.monotonic()

    def read(self, user: socket.socket) -> None:
        """Hear a user: the end of its connection, or its wish to stop."""
        if user not in self.users:
            return
        try:
            said = user.recv(64)
        except OSError:
            said = b""
        if said.startswith(b"stop") and len(self.users) == 1:
            self.stopping = True
        elif not said:
            self.drop(user)

    def tell(self, event: str, **facts: Any) -> None:
        """Send one line to every user."""
        for user in list(self.users):
            self.tell_one(user, event, **facts)

    def tell_one(self, user: socket.socket, event: str, **facts: Any) -> None:
        """Send one line to one user; one that cannot be reached is gone."""
        try:
            user.sendall(json.dumps({"event": event, **facts}).encode() + b"\n")
        except OSError:
            self.drop(user)

    def hello(self, user: socket.socket) -> None:
        """Say who is served."""
        self.tell_one(user, "hello", pid=self.main, **self.options["hello"])

    def accept(self) -> None:
        """Take one more user from the socket."""
        assert self.listener is not None
        with contextlib.suppress(OSError):  # it may have gone again
            user, _ = self.listener.accept()
            self.add(user)
            if user in self.users:
                self.hello(user)

    def listen(self, path: str) -> None:
        """Offer the server to other processes of the same user."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(path)
        self.listener.listen(64)
        self.listener.settimeout(2.0)
        self.selector.register(self.listener, selectors.EVENT_READ, self.accept)

    # ── the command ──────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Start the command in a session of its own."""
        parent = os.getpid()

        def in_child() -> None:
            _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:  # the parent died before it was watched
                os._exit(1)

        child = subprocess.Popen(  # noqa: S603 - the command is what this process is for
            self.command,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=in_child if LINUX else None,  # noqa: PLW1509 - there are no threads here
        )
        self.main = child.pid
        child.returncode = 0  # reaped below, together with the orphans

    def reap(self) -> None:
        """Collect what has ended; note the command's own exit code."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.main:
                self.code = os.waitstatus_to_exitcode(status)

    def left(self) -> bool:
        """Whether any process of the command is alive."""
        self.reap()
        if LINUX:
            return bool(descendants(os.getpid()))
        try:
            os.killpg(self.main, 0)
        except OSError:
            return False
        return True

    def signal_all(self, number: int) -> None:
        """Send a signal to the group and to what left it."""
        # What is gone already needs no signal.
        with contextlib.suppress(OSError):
            os.killpg(self.main, number)
        for pid in descendants(os.getpid()):
            with contextlib.suppress(OSError):
                os.kill(pid, number)

    def end(self) -> None:
        """End every process of the command and say so."""
        if self.listener is not None:
            # Unlinked before it closes: who comes now finds no name and starts a server of its own.
            with contextlib.suppress(OSError):
                os.unlink(self.options["socket"])
            self.listener.close()
        begin = time.monotonic()
        self.signal_all(signal.SIGTERM)
        while self.left() and (waited := time.monotonic() - begin) < GIVE_UP_S:
            if waited > self.options["stop_s"]:
                self.signal_all(signal.SIGKILL)
            time.sleep(POLL_S)
        self.tell("ended", code=self.code)

    def on_signal(self, number: int, _: object) -> None:
        """Note a signal; SIGCHLD only wakes the loop."""
        if number != signal.SIGCHLD:
            self.stopping = True

    def run(self) -> int:
        """Serve until the command or its last user is gone."""
        wake, waker = socket.socketpair()
        for end in (wake, waker):
            end.setblocking(False)
        self.selector.register(wake, selectors.EVENT_READ, lambda: wake.recv(256))
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self.on_signal)
        if LINUX:
            _prctl(PR_SET_CHILD_SUBREAPER, 1)
        first = socket.socket(fileno=self.options["fd"])
        first.set_inheritable(False)
        self.add(first)
        try:
            if self.options["socket"]:
                self.listen(self.options["socket"])
            self.start()
        except (OSError, subprocess.SubprocessError) as error:
            self.tell("failed", reason=str(error))
            return 1
        for user in list(self.users):
            self.hello(user)
        self.watch()
        self.end()
        return 0

    def watch(self) -> None:
        """Wait for an end: of the command, of its last user, or by a signal."""
        while not self.stopping:
            self.reap()
            if self.code is not None:
                self.tell("exited", code=self.code)
                return
            timeout = None
            if not self.users:
                timeout = self.alone_since + self.options["grace_s"] - time.monotonic()
                if timeout <= 0:
                    return
            for key, _ in self.selector.select(timeout):
                key.data()


def main(argv: list[str]) -> int:
    """Read the options, detach if asked, supervise."""
    options = json.loads(argv[1])
    # Detached, it is not the child of a user that may end long before the others.
    if options["detach"] and os.fork():
        os._exit(0)
    return Supervisor(options, argv[2:]).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv))
