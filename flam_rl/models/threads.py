"""Work shared out among threads that run their operators alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")
S = TypeVar("S")


class LoneThreads:
    """Threads on each of which an operator uses one core.

    Operators that share out their own work wait for each other after every one of them; threads that share out
    a whole step wait once, which also holds where other programs take turns on the same cores.

    Args:
        count: how many threads.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="imagination", initializer=_alone)
        everyone = threading.Barrier(count)
        before = torch.get_num_threads()
        list(self._pool.map(lambda _: everyone.wait(), range(count)))
        torch.set_num_threads(before)  # what threads that start later get was set with theirs

    def map(self, function: Callable[[S], T], items: Iterable[S]) -> list[T]:
        """`function` of each item, side by side, with gradients or without as in the calling thread."""
        inference, gradients = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

        def alike(item: S) -> T:
            with torch.inference_mode(inference), torch.set_grad_enabled(gradients):
                return function(item)

        return list(self._pool.map(alike, items))


def _alone() -> None:
    torch.get_num_threads()  # a thread takes over the number of its process when first asked
    torch.set_num_threads(1)
