import pytest

from kpi_pipeline.app import AppContext
from kpi_pipeline.bison import calls
from kpi_pipeline.retry import Backoff
from kpi_pipeline_tests.bison_sandbox.running import Bison
from kpi_pipeline_tests.sync.support import Agency, open_agency


@pytest.fixture(autouse=True)
def _no_pauses_between_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "BACKOFF", Backoff(first=0, longest=0, jitter=0))


@pytest.fixture
def agency(app: AppContext, bison: Bison) -> Agency:
    return open_agency(app, bison)
