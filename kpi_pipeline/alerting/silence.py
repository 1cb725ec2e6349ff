"""Keeps addresses that are secrets out of the logs of the libraries that call them."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

# httpx logs each address, urllib3 and httpcore do when they tell all, apprise now and then.
_TALKATIVE = ("apprise", "urllib3", "httpx", "httpcore")


@contextmanager
def in_silence() -> Iterator[None]:
    """Let none of them log anything until the block ends."""
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    levels = [it.level for it in loggers]
    for it in loggers:
        it.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for it, level in zip(loggers, levels, strict=True):
            it.setLevel(level)
