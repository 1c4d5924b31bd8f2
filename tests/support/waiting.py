"""Waits for what another thread or process brings about: looks again and again, and gives up loudly."""

import asyncio
import time
from collections.abc import Callable

PATIENCE_S = 20.0


async def until(happened: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
    """Returns as soon as happened() is true."""
    end = time.monotonic() + patience_s
    while not happened():
        assert time.monotonic() < end, "it never happened"
        await asyncio.sleep(0.002)


def wait_until(happened: Callable[[], bool]) -> None:
    """The same where there is no event loop."""
    end = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.002)
