"""Where a build lies: a folder, or an object store; what a run does there beside writing files into its folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

from k710.before_build import refuse_foreign
from k710.claims import CLAIMS_FOLDER, Claims
from k710.processes import GUARD_FILE, only_writer
from k710.shards.shelf import LocalShelf, Shelf


class HeldClaim(Protocol):
    """A claim of this process."""

    def require(self) -> None:
        """Go on only while the claim is ours; a ``SourceError`` otherwise."""
        ...


class KeptClaims(Protocol):
    """The claims on a build."""

    def held(self, name: str, facts: Mapping[str, Any]) -> AbstractContextManager[HeldClaim]:
        """Hold the claim ``name``, which tells ``facts`` to others; a ``TakenError`` when somebody has it."""
        ...

    def alive(self) -> dict[str, dict[str, Any]]:
        """The claims of all who live, by name, with what they tell."""
        ...


class Home(Protocol):
    """Where a build lies."""

    @property
    def out(self) -> Path:
        """The folder that a run works in: that of the build, or one that only stands for it."""
        ...

    @property
    def url(self) -> str:
        """Of the object store; empty: the build lies in ``out`` itself."""
        ...

    @property
    def poll_s(self) -> float:
        """Between two looks at what others do."""
        ...

    @property
    def shelf(self) -> Shelf:
        """Its shards and waiting clips."""
        ...

    @property
    def claims(self) -> KeptClaims:
        """Who writes to it."""
        ...

    def look(self) -> None:
        """See, before anything is claimed, that no files of others lie there; a ``UsageError`` when they do."""
        ...

    def guarded(self, refusal: str) -> AbstractContextManager[None]:
        """Hold ``out`` against other processes on this machine; a ``UsageError`` when one has it."""
        ...

    def pull(self, held: HeldClaim | None) -> None:
        """Bring ``out`` to what the build is now; what is written from here on needs the claim, if there is one."""
        ...

    def note(self, lines: bytes) -> None:
        """Have lines of the ledger written with the next commit."""
        ...

    def merged(self) -> None:
        """Have the one ledger that the lines of all are in now."""
        ...

    def publish(self) -> None:
        """Have the files that lie in ``out`` beside shards and clips: the lock first and the index last."""
        ...


class LocalHome:
    """A build in a folder: what is written there is there."""

    url = ""
    poll_s = 0.5

    def __init__(self, out: Path) -> None:
        self.out = out
        """Folder of the build."""
        self.shelf: Shelf = LocalShelf(out)
        """Its shards and waiting clips."""
        self.claims: KeptClaims = Claims(out / CLAIMS_FOLDER)
        """Who writes to it."""

    def look(self) -> None:
        refuse_foreign(self.out)

    @contextmanager
    def guarded(self, refusal: str) -> Iterator[None]:
        with only_writer(self.out / GUARD_FILE, refusal):
            yield

    def pull(self, held: HeldClaim | None) -> None:
        """Nothing: it is what the build is."""

    def note(self, lines: bytes) -> None:
        """Nothing: they are written."""

    def merged(self) -> None:
        """Nothing: it is there."""

    def publish(self) -> None:
        """Nothing: they are there."""
