from collections.abc import Iterator

import pytest

from kpi_pipeline.app import AppContext
from kpi_pipeline.bison import BisonClient, calls
from kpi_pipeline.retry import Backoff
from kpi_pipeline_tests.agency import Agency, open_agency
from kpi_pipeline_tests.bison_sandbox.running import AsyncShortcut, Bison


@pytest.fixture(scope="package", autouse=True)
def _shortcuts() -> Iterator[None]:
    """No pauses between tries, and every call of the app takes the shortcut into the sandbox."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calls, "BACKOFF", Backoff(first=0, longest=0, jitter=0))
        patch.setattr(
            "kpi_pipeline.app.BisonClient",
            lambda *args, **named: BisonClient(*args, **named, transport=AsyncShortcut()),
        )
        yield


@pytest.fixture
def agency(app: AppContext, bison: Bison) -> Agency:
    return open_agency(app, bison)
