"""Claims on a folder that several machines may see: a claim is a file, and its age tells whether its owner lives.

A file is made only where there is none, which network disks do as well as local ones. Its owner touches it every
``HEARTBEAT_S``; one that was not touched for ``EXPIRY_S`` is dead and may be taken over. Ages are differences between
times that the disk itself gave, so that clocks of machines do not matter. A claim of this machine is told dead at once:
its owner holds a lock on it that ends with the process. That lock is a shortcut; nothing else relies on it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from k710.errors import SourceError, UsageError

HEARTBEAT_S = 15.0
"""Between two touches of a claim."""
EXPIRY_S = 180.0
"""Age at which a claim is dead. Network disks may show an age that is a minute old, and a beat may come late."""

CLAIMS_FOLDER = ".build-claims"
"""In a build: where its writers say that they are there."""

_PROBE = ".now-"
_POLL_S = 0.05


class TakenError(UsageError):
    """Somebody who lives has the claim."""


class Held:
    """A claim of this process, touched by a thread of its own until it is let go."""

    def __init__(self, path: Path, token: str, descriptor: int) -> None:
        self._path, self._token, self._descriptor = path, token, descriptor
        self._is_lost = False
        self._last_beat = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat_on, daemon=True)
        self._thread.start()

    def require(self) -> None:
        """Go on only while the claim is ours.

        Raises:
            SourceError: it was taken over, as this process had been silent for too long.
        """
        if time.monotonic() - self._last_beat > EXPIRY_S / 2:
            self._beat()
        if self._is_lost:
            raise SourceError(
                f"{self._path.parent.parent}: this run was silent for over {EXPIRY_S:g} s, and another took its place",
                hint="run the same command again: it goes on where it was",
            )

    def let_go(self) -> None:
        """Take the claim away, if it is ours."""
        self._ended.set()
        self._thread.join()
        if _facts(self._path).get("token") == self._token:
            self._path.unlink(missing_ok=True)
        os.close(self._descriptor)

    def _beat_on(self) -> None:
        while not self._ended.wait(HEARTBEAT_S) and not self._is_lost:
            self._beat()

    def _beat(self) -> None:
        # A disk that does not answer now may do so at the next beat, in time.
        with suppress(OSError):
            if _facts(self._path).get("token") != self._token:
                self._is_lost = True
                return
            os.utime(self._path)
            self._last_beat = time.monotonic()


class Claims:
    """The claims in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        """Where the claims are; made when the first comes, gone with the last."""

    @contextmanager
    def held(self, name: str, facts: Mapping[str, Any]) -> Iterator[Held]:
        """Hold the claim ``name``, which tells ``facts`` to others.

        Raises:
            TakenError: somebody has it.
        """
        token = secrets.token_hex(8)
        path, descriptor = self._made(name)
        # Whoever reads that this machine holds it finds it locked.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        owner = {"token": token, "machine": machine(), "host": socket.gethostname(), "pid": os.getpid()}
        os.write(descriptor, json.dumps({**owner, **facts}).encode())
        os.fsync(descriptor)
        held = Held(path, token, descriptor)
        try:
            yield held
        finally:
            held.let_go()
            for probe in self.folder.glob(f"{_PROBE}*"):
                probe.unlink(missing_ok=True)
            with suppress(OSError):  # others are there
                self.folder.rmdir()

    def alive(self) -> dict[str, dict[str, Any]]:
        """The claims of all who live, this process among them, by name, with what they tell."""
        names = sorted(path.name for path in self.folder.glob("[!.]*"))
        return {name: _facts(self.folder / name) for name in names if self._is_alive(self.folder / name)}

    def _made(self, name: str) -> tuple[Path, int]:
        path = self.folder / name
        while True:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                return path, os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
            except FileNotFoundError:  # the folder went with somebody's last claim
                continue
            except FileExistsError:
                identity = _identity(path)
                if self._is_alive(path):
                    raise TakenError(
                        f"{self.folder.parent}: {told(name, _facts(path))} is writing to it",
                        hint=f"wait for it (one that died is forgotten after {EXPIRY_S:g} s), or give another --out",
                    ) from None
                self._bury(path, identity)

    def _is_alive(self, path: Path) -> bool:
        if _facts(path).get("machine") == machine():
            locked = is_locked(path)
            if locked is not None:
                return locked
        try:
            return self._now() - path.stat().st_mtime < EXPIRY_S
        except FileNotFoundError:
            return False

    def _now(self) -> float:
        """What the time is for the disk."""
        probe = self.folder / f"{_PROBE}{secrets.token_hex(8)}"
        while True:
            probe.touch()
            with suppress(FileNotFoundError):  # swept away by one that has just ended
                now = probe.stat().st_mtime
                probe.unlink(missing_ok=True)
                return now

    def _bury(self, path: Path, identity: str) -> None:
        """Take a dead claim away. One at a time has the right to it, so that what comes in its place is not taken."""
        right = self.folder / f".dead-{identity}"
        try:
            os.close(os.open(right, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except FileNotFoundError:  # the folder went with somebody's last claim
            return
        except FileExistsError:
            with suppress(FileNotFoundError):
                if self._now() - right.stat().st_mtime > EXPIRY_S:
                    right.unlink()
            time.sleep(_POLL_S)
            return
        try:
            if _identity(path) == identity:
                path.unlink(missing_ok=True)
        finally:
            right.unlink(missing_ok=True)


def told(name: str, facts: Mapping[str, Any]) -> str:
    """Who has a claim, in words."""
    where = f" on {facts['host']} (process {facts['pid']})" if "host" in facts and "pid" in facts else ""
    return f"{facts.get('who', name)}{where}"


def is_locked(path: Path) -> bool | None:
    """Whether some process of this machine holds the lock on ``path``; None when the disk knows no locks."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return False


def machine() -> str:
    """What tells this machine, since it was started, from all others."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


def _identity(path: Path) -> str:
    """What tells a claim from another that has its name later; empty when it is gone."""
    token = _facts(path).get("token")
    try:
        return str(token or path.stat().st_mtime_ns)
    except FileNotFoundError:
        return ""


def _facts(path: Path) -> dict[str, Any]:
    """What a claim tells; nothing when it is gone, or its owner has not come to write it."""
    try:
        facts = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}
