import pytest

from kpi_pipeline.bison import calls
from kpi_pipeline.retry import Backoff


@pytest.fixture(autouse=True)
def _no_pauses_between_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "BACKOFF", Backoff(first=0, longest=0, jitter=0))
