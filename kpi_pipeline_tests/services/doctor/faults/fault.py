"""A fault that the doctor knows, as a context manager that makes it and undoes it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import pytest

from kpi_pipeline.services.doctor.finding import Verdict
from kpi_pipeline_tests.services.doctor.installation import Well

Patch = pytest.MonkeyPatch
Made = Callable[[Well, Patch], AbstractContextManager[None]]


@dataclass(frozen=True)
class Fault:
    """A fault, the check that names it, with what verdict, and words of what it says."""

    make: Made
    check: str
    words: str
    verdict: Verdict

    @property
    def name(self) -> str:
        """What it is called in the output of tests."""
        return self.make.__name__.replace("_", " ")


FAULTS: list[Fault] = []


def fault(
    check: str, words: str, verdict: Verdict = Verdict.PROBLEM
) -> Callable[[Callable[[Well, Patch], Iterator[None]]], None]:
    """Add the fault that the generator makes before its `yield`, and undoes after it."""

    def add(make: Callable[[Well, Patch], Iterator[None]]) -> None:
        @contextmanager
        def made(well: Well, patch: Patch) -> Iterator[None]:
            steps = make(well, patch)
            next(steps)
            try:
                yield
            finally:
                next(steps, None)

        made.__name__ = make.__name__
        FAULTS.append(Fault(made, check, words, verdict))

    return add


def setting(
    check: str, words: str, name: str, value: str, verdict: Verdict = Verdict.PROBLEM
) -> None:
    """Add the fault that a setting has this value."""

    def make(well: Well, patch: Patch) -> Iterator[None]:
        patch.setenv(name, value)
        yield

    make.__name__ = f"{name} is {value or 'unset'}"
    fault(check, words, verdict)(make)


WARNING = Verdict.WARNING
