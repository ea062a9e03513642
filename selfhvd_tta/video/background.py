"""Decoding ahead and encoding behind, so that a device does not wait for the codec."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def ahead(items: Iterator[T], depth: int = 4) -> Generator[T, None, None]:
    """The same items, produced by a thread up to ``depth`` ahead.

    An error is raised in place of its item. Closing this generator, or dropping it, ends the thread.

    Args:
        items: used by the thread alone from now on.
        depth: most items produced and not yet taken.
    """
    filled: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def put(entry: tuple[T | None, BaseException | None]) -> bool:
        while not stopped.is_set():
            try:
                filled.put(entry, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        end: BaseException = StopIteration()
        try:
            for item in items:
                if not put((item, None)):
                    break
        except BaseException as error:  # noqa: BLE001 - handed to the consumer
            end = error
        finally:
            if hasattr(items, "close"):
                items.close()
        put((None, end))

    thread = threading.Thread(target=work, name="decode ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, end = filled.get()
            if end is not None:
                if isinstance(end, StopIteration):
                    return
                raise end
            yield item  # type: ignore[misc]
    finally:
        stopped.set()
        thread.join()


class Background:
    """Runs calls one after the other on a thread, at most ``depth`` of them waiting."""

    def __init__(self, depth: int = 4) -> None:
        self._depth = depth
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="encode")
        self._waiting: deque[Future[None]] = deque()

    def run(self, call: Callable[[], None]) -> None:
        """Queue ``call`` after the earlier ones; raises what an earlier one raised."""
        while self._waiting and (self._waiting[0].done() or len(self._waiting) >= self._depth):
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(call))

    def finish(self) -> None:
        """Wait for all calls and end the thread; raises what one of them raised."""
        try:
            while self._waiting:
                self._waiting.popleft().result()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Drop the calls that have not started, wait for the one that has, and end the thread."""
        self._waiting.clear()
        self._pool.shutdown(wait=True, cancel_futures=True)
