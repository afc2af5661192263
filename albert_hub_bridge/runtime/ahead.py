"""Apply a function to items in another thread, ahead of the caller."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from queue import SimpleQueue
from threading import Semaphore, Thread
from typing import TypeVar


Given = TypeVar("Given")
Made = TypeVar("Made")


def ahead(function: Callable[[Given], Made], items: Iterable[Given], count: int) -> Iterator[Made]:
    """Yield the results of a function, in the order of the items, while another thread computes the next ones.

    Nobody waits for the thread when the caller stops early: reading an item can take forever (a terminal, a pipe). The
    thread ends after the item that it is reading, or with the process.

    Args:
        function: The function. It runs in the other thread.
        items: The items. They are read in the other thread.
        count: The largest number of results that wait for the caller. One more item may be read and computed.

    Raises:
        Exception: What the function or the items raise.
    """
    results: SimpleQueue[tuple[list[Made], BaseException | None]] = SimpleQueue()  # a result, an error or the end
    free = Semaphore(count)
    stopped = False

    def work() -> None:
        error = None
        try:
            for item in items:
                result = function(item)
                free.acquire()
                if stopped:
                    return
                results.put(([result], None))
        except BaseException as caught:  # the caller raises it
            error = caught
        results.put(([], error))

    Thread(target=work, name="ahead", daemon=True).start()
    try:
        while (found := results.get())[0]:
            free.release()
            yield found[0][0]
        if found[1] is not None:
            raise found[1]
    finally:
        stopped = True
        free.release()
