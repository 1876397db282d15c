"""Threads of one core each, whose operators wait for no other thread.

An operator that is shared out among threads ends when the last of them does, and those that are done spin until then.
On tensors as small as a world model's that costs more than it gains as soon as another program wants a core: each of
hundreds of operators a step then waits for a thread that is not running. So operators here have a core each, and what is
worth more than one core is shared out whole.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch
from threadpoolctl import threadpool_limits

FEWEST = 32
"""Worlds that are worth a thread."""
T = TypeVar("T")
S = TypeVar("S")


@contextmanager
def one_core() -> Iterator[None]:
    """Operators of the calling thread, torch's and scikit-learn's, have one core inside of the context.

    Other threads, and those that start meanwhile, have as many as before.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    # That set what threads get that start later as well; another thread sets it back without changing this one's.
    other = threading.Thread(target=torch.set_num_threads, args=(before,))
    other.start()
    other.join()
    try:
        with threadpool_limits(1, "openmp"):
            yield
    finally:
        torch.set_num_threads(before)


def _alone() -> None:
    torch.get_num_threads()  # a thread takes over the number of its process when first asked
    torch.set_num_threads(1)


class LoneThreads:
    """Threads on each of which an operator uses one core. They end when this object is no longer held.

    Args:
        count: how many threads.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool: ThreadPoolExecutor | None = None
        self._starting = threading.Lock()

    def map(self, function: Callable[[S], T], items: Sequence[S]) -> list[T]:
        """`function` of each item, side by side, with gradients or without as in the calling thread.

        A single item stays in the calling thread if that uses one core anyway.
        """
        if len(items) == 1 and torch.get_num_threads() == 1:
            return [function(items[0])]
        inference, gradients = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

        def alike(item: S) -> T:
            with torch.inference_mode(inference), torch.set_grad_enabled(gradients):
                return function(item)

        return list(self._started().map(alike, items))

    def run(self, function: Callable[[], T]) -> T:
        """`function()`, on one of the threads; with gradients, which come back through the calling one, on that."""
        return function() if torch.is_grad_enabled() else self.map(lambda _: function(), [None])[0]

    def split(self, function: Callable[..., torch.Tensor], *batch: torch.Tensor) -> torch.Tensor:
        """`function` of tensors `(B, ...)`, which it treats row by row, to a tensor `(B, ...)`; each thread has its share of the rows."""
        if batch[0].device.type != "cpu":
            return function(*batch)
        count = max(1, min(self.count, len(batch[0]) // FEWEST))
        shares = list(zip(*(part.chunk(count) for part in batch), strict=True))
        return torch.cat(self.map(lambda share: function(*share), shares))

    def _started(self) -> ThreadPoolExecutor:
        with self._starting:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self.count, thread_name_prefix="flam_rl", initializer=_alone)
                everyone = threading.Barrier(self.count)
                before = torch.get_num_threads()
                list(self._pool.map(lambda _: everyone.wait(), range(self.count)))
                torch.set_num_threads(before)  # what threads that start later get was set with theirs
        return self._pool

    def forget(self) -> None:
        """Drop the threads in a forked process, to which those of its parent did not come along."""
        self._pool, self._starting = None, threading.Lock()


_pools: weakref.WeakValueDictionary[int, LoneThreads] = weakref.WeakValueDictionary()


def lone_threads() -> LoneThreads:
    """As many threads as the calling thread's operators would use. All who hold them at a time share them."""
    count = torch.get_num_threads()
    return _pools.setdefault(count, LoneThreads(count))


def _forked() -> None:
    for pool in list(_pools.values()):
        pool.forget()


os.register_at_fork(after_in_child=_forked)
