"""Claims on a build in an object store: a claim is an object; the age of its last beat tells whether its owner lives.

It is made only where there is none, and each beat and each taking over names the etag of what was seen, so that of two
only one succeeds. Ages are by the clock of the store. A claim whose owner worked in a folder of this machine is told
dead at once: the owner held a lock in that folder, which ends with the process.
"""

from __future__ import annotations

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

from k710.claims import TakenError, is_locked, machine, told
from k710.errors import FeedError, K710Error, SourceError, UsageError
from k710.objects.objects import OvertakenError
from k710.objects.s3 import S3Objects, Seen
from k710.processes import GUARD_FILE

HEARTBEAT_S = 15.0
"""Between two beats of a claim."""
EXPIRY_S = 180.0
"""Age at which a claim is dead and may be taken over."""

WORK_ID_FILE = ".work-id"
"""In the local folder of a build: tells it from all others."""


class ObjectHeld:
    """A claim of this process, kept alive by a thread of its own until it is let go."""

    def __init__(self, objects: S3Objects, path: str, facts: Mapping[str, Any], etag: str, begun: float) -> None:
        self._objects, self._path, self._facts = objects, path, dict(facts)
        self._etag, self._last_beat = etag, begun
        self._is_lost = False
        self._beating = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat_on, daemon=True)
        self._thread.start()

    def require(self) -> None:
        """Go on only while the claim is ours.

        Raises:
            SourceError: it was taken over, or may be: nothing was heard from the store for too long.
        """
        if not self._is_lost and time.monotonic() - self._last_beat > EXPIRY_S / 2:
            self._beat()
        if self._is_lost or time.monotonic() - self._last_beat > EXPIRY_S:
            raise SourceError(
                f"{self._objects.root}: this run was silent for over {EXPIRY_S:g} s, and another may have taken its "
                "place",
                hint="run the same command again: it goes on where it was",
            )

    def let_go(self) -> None:
        """Take the claim away, if it is ours."""
        self._ended.set()
        self._thread.join()
        # A store that does not answer forgets it in time.
        with suppress(K710Error):
            if not self._is_lost and facts_of(self._objects, self._path).get("token") == self._facts["token"]:
                try:
                    self._objects.delete_as_seen(self._path, self._etag)
                except UsageError:
                    # A store without conditional DELETE; that the claim is ours was just seen.
                    self._objects.delete([self._path])

    def _beat_on(self) -> None:
        while not self._ended.wait(HEARTBEAT_S) and not self._is_lost:
            self._beat()

    def _beat(self) -> None:
        with self._beating:
            # Counted from before the request: the store may write it at once, and the answer take its time.
            begun = time.monotonic()
            self._facts["beats"] = int(self._facts.get("beats", 0)) + 1
            try:
                self._etag = self._objects.put_over(self._path, _as_bytes(self._facts), self._etag)
                self._last_beat = begun
            except OvertakenError:
                self._look_whose_it_is()
            except K710Error:
                # A store that does not answer now may do so at the next beat, in time.
                return

    def _look_whose_it_is(self) -> None:
        """The object is another than we wrote last, unless an answer was lost on its way to us."""
        with suppress(K710Error):
            seen = self._objects.seen(self._path)
            if seen is None or facts_of(self._objects, self._path).get("token") != self._facts["token"]:
                self._is_lost = True
            else:
                self._etag = seen.etag


class ObjectClaims:
    """The claims on the build under one URL."""

    def __init__(self, objects: S3Objects, folder: str, work: Path) -> None:
        self._objects, self._folder, self._work = objects, folder, work
        self._tokens: set[str] = set()
        self._keeps_conditions = False

    @contextmanager
    def held(self, name: str, facts: Mapping[str, Any]) -> Iterator[ObjectHeld]:
        """Hold the claim ``name``, which tells ``facts`` to others.

        Raises:
            TakenError: somebody has it.
            UsageError: the store takes conditional writes and does not keep to the conditions.
        """
        path, token = f"{self._folder}/{name}", secrets.token_hex(8)
        owner = {"token": token, "machine": machine(), "host": socket.gethostname(), "pid": os.getpid()}
        told_facts = {**owner, "work": str(self._work), "work_id": work_id(self._work), **facts}
        begun = time.monotonic()
        etag = self._made(name, path, told_facts)
        self._require_conditions(path, told_facts)
        self._tokens.add(token)
        held = ObjectHeld(self._objects, path, told_facts, etag, begun)
        try:
            yield held
        finally:
            held.let_go()
            self._tokens.discard(token)

    def alive(self) -> dict[str, dict[str, Any]]:
        """The claims of all who live, this process among them, by name, with what they tell."""
        found = {}
        for path in sorted(self._objects.listed(self._folder)):
            name = path.rpartition("/")[2]
            seen = None if name.startswith(".") else self._objects.seen(path)
            if seen is not None:
                facts = facts_of(self._objects, path)
                if self._is_alive(seen, facts):
                    found[name] = facts
        return found

    def _made(self, name: str, path: str, facts: Mapping[str, Any]) -> str:
        for _ in range(5):
            with suppress(OvertakenError):
                return self._objects.put_if_absent(path, _as_bytes(facts))
            seen = self._objects.seen(path)
            if seen is None:
                continue
            theirs = facts_of(self._objects, path)
            if theirs.get("token") == facts["token"]:  # made by a try whose answer was lost
                return seen.etag
            if self._is_alive(seen, theirs):
                raise self._taken(told(name, theirs))
            with suppress(OvertakenError):
                return self._objects.put_over(path, _as_bytes(facts), seen.etag)
        raise self._taken("somebody who is just beginning")

    def _require_conditions(self, path: str, facts: Mapping[str, Any]) -> None:
        """Try to make the claim again, which must fail: nothing else would tell of a store that overwrites it."""
        if self._keeps_conditions:
            return
        try:
            self._objects.put_if_absent(path, _as_bytes(facts))
        except OvertakenError:
            self._keeps_conditions = True
            return
        self._objects.delete([path])
        raise UsageError(
            f"{self._objects.root}: this store overwrites what should only be made where there is nothing, so two "
            "builds could not be told apart",
            hint="--unguarded goes on all the same, if you see to it that nothing else writes there",
        )

    def _taken(self, who: str) -> TakenError:
        return TakenError(
            f"{self._objects.root}: {who} is writing to it",
            hint=f"wait for it (one that died is forgotten after {EXPIRY_S:g} s), or give another --out",
        )

    def _is_alive(self, seen: Seen, facts: Mapping[str, Any]) -> bool:
        if facts.get("machine") == machine() and facts.get("work_id"):
            if facts["work_id"] == work_id(self._work):
                # Whoever has the folder is alone in it.
                return facts.get("token") in self._tokens
            work = Path(str(facts.get("work")))
            if facts["work_id"] == work_id(work) and is_locked(work / GUARD_FILE) is False:
                return False
        return seen.age_s < EXPIRY_S


class NoClaims:
    """For stores that cannot keep two apart, when the user has said that nobody else writes."""

    @contextmanager
    def held(self, name: str, facts: Mapping[str, Any]) -> Iterator[NoHeld]:  # noqa: ARG002 - as those that are kept
        """Hold nothing."""
        yield NoHeld()

    def alive(self) -> dict[str, dict[str, Any]]:
        """Nobody is known of."""
        return {}


class NoHeld:
    """What is held then."""

    def require(self) -> None:
        """Go on."""


def work_id(work: Path) -> str:
    """What tells the local folder ``work`` from all others; empty: it is none of ours, or gone."""
    try:
        return (work / WORK_ID_FILE).read_text().strip()
    except OSError:
        return ""


def facts_of(objects: S3Objects, path: str) -> dict[str, Any]:
    """What a claim tells; nothing when it is gone or damaged."""
    try:
        facts = json.loads(objects.read(path))
    except FeedError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return {}
        raise
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}


def _as_bytes(facts: Mapping[str, Any]) -> bytes:
    return json.dumps(facts, sort_keys=True).encode()
