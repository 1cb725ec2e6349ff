from collections.abc import Iterator

import pytest

from kpi_pipeline_tests.sandbox.running import Bison, Stage, bison_on, on_stage, options


@pytest.fixture(scope="session")
def stage() -> Iterator[Stage]:
    with on_stage() as running:
        yield running


@pytest.fixture
def bison(stage: Stage) -> Iterator[Bison]:
    """A fresh sandbox of 26 clients, unlimited, on a Wednesday at three in the afternoon."""
    with bison_on(stage, options()) as fresh:
        yield fresh
