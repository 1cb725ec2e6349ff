"""Not collected by name: a test that starts servers and waits to be interrupted."""

import os
import time
from pathlib import Path

from sqlalchemy import URL

from kpi_pipeline_tests.restartable import restartable_server


def test_that_is_interrupted(postgres: URL) -> None:
    assert postgres.database
    with restartable_server():
        Path(os.environ["PYTEST_INTERRUPT_ME"]).touch()
        time.sleep(600)
