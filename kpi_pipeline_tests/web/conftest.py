import pytest
from argon2 import PasswordHasher

from kpi_pipeline.web import access, passwords


class Clock:
    """Seconds of a clock that tests advance; it stands still otherwise."""

    def __init__(self) -> None:
        self.seconds = 1_000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture(autouse=True)
def _cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes of the same kind that take no time."""
    monkeypatch.setattr(passwords, "_hasher", PasswordHasher(1, 8, 1))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of guards that the test makes after it."""
    clock = Clock()
    monkeypatch.setattr(access, "monotonic", clock)
    return clock
