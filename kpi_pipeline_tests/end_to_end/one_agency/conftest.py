from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL

from kpi_pipeline_tests.end_to_end.agency import Agency, running_agency


@pytest.fixture(scope="package")
def agency(
    postgres: URL, administer: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Agency]:
    """One agency for the files of this folder, through Dagster's real page and daemon."""
    with pytest.MonkeyPatch.context() as patch:
        state: Path = tmp_path_factory.mktemp("agency")
        patch.setenv("KPI_ENV_FILE", "")
        patch.setenv("KPI_STATE_DIR", str(state))
        patch.delenv("KPI_TIMEZONE", raising=False)
        with running_agency(postgres, administer) as agency:
            yield agency
