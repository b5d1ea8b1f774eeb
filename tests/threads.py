"""Threads that start together, for tests of what they share."""

import threading
from concurrent.futures import ThreadPoolExecutor


def run_at_once(function, count):
    """Call a function with 0, 1, ... in as many threads, which start together, and return the results."""
    barrier = threading.Barrier(count)

    def work(index):
        barrier.wait()
        return function(index)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, range(count)))
