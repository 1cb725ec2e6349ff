from collections.abc import Iterator

import pytest
import stamina

from kpi_pipeline.app import AppContext
from kpi_pipeline_tests.bison_sandbox.running import Bison
from kpi_pipeline_tests.sync.support import Agency, open_agency


@pytest.fixture(autouse=True)
def _no_pauses_between_tries() -> Iterator[None]:
    with stamina.set_testing(True, attempts=100, cap=True):
        yield


@pytest.fixture
def agency(app: AppContext, bison: Bison) -> Agency:
    return open_agency(app, bison)
