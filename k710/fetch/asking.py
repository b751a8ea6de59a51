"""Many questions to servers at once, within bounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TypeVar

from k710.fetch.client import Client, Facts
from k710.fetch.outcomes import FORBIDDEN, REFUSED, FetchError

Item = TypeVar("Item")
Answer = TypeVar("Answer")

_TICK_S = 0.5


def in_parallel(
    client: Client,
    items: Sequence[Item],
    work: Callable[[Item], Answer],
    parallel: int,
    tick: Callable[[int], None] = lambda _: None,
) -> list[Answer]:
    """What ``work`` returns for each item, in their order, ``parallel`` at a time.

    Args:
        client: stopped when this is interrupted or a piece of work raises, so that the others end too.
        items: what to work on; begun in their order.
        work: called in a thread.
        parallel: threads.
        tick: told now and then, in this thread, how many items are done.
    """
    with ThreadPoolExecutor(max_workers=parallel, thread_name_prefix="fetch") as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            left = set(futures)
            while left:
                tick(len(futures) - len(left))
                done, left = wait(left, timeout=_TICK_S, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
        except BaseException:
            client.stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    tick(len(futures))
    return [future.result() for future in futures]


def survey(client: Client, urls: Sequence[str], parallel: int) -> list[Facts | FetchError]:
    """What servers say about files, or why they do not."""

    def ask(url: str) -> Facts | FetchError:
        try:
            return client.facts(url)
        except FetchError as error:
            # Some servers refuse HEAD only.
            return Facts() if error.status in (FORBIDDEN, REFUSED) else error

    return in_parallel(client, urls, ask, parallel)


def nearest(folder: Path) -> Path:
    """``folder``, or the first folder above it that is there."""
    return next(p for p in (folder, *folder.absolute().parents) if p.exists())
