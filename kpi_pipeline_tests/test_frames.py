"""Frames for analysis: their rows and their types, and where pandas is imported."""

import subprocess
import sys
from datetime import date
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pytest
from pydantic import SecretStr
from sqlalchemy import URL, Engine

import kpi_pipeline
from kpi_pipeline import frames
from kpi_pipeline.db.registry.vault import Vault
from kpi_pipeline.db.tables import client_metrics
from kpi_pipeline.domain.columns import PERCENTAGES
from kpi_pipeline.errors import KpiError
from kpi_pipeline.frames import read_metrics
from kpi_pipeline.settings import Settings
from kpi_pipeline_tests.db.stocked import AS_OF, imported, record, stock_metrics
from kpi_pipeline_tests.test_layers import modules_in


@pytest.fixture
def _three_clients(engine: Engine, vault: Vault) -> None:
    imported(
        engine,
        vault,
        record(101, "Harbor", display_name="Harbor & Co"),
        record(102, "Quay"),
        record(103, "Sloop", active=False),
    )


@pytest.fixture
def _stocked(engine: Engine, _three_clients: None) -> None:
    stock_metrics(engine, "quay", date(2026, 3, 17), positive_replies_mtd=7)
    numbers = {"emails_sent_mtd": 2**53 + 1, "mtd_leads_progress": Decimal("33.33")}
    stock_metrics(engine, "harbor", date(2026, 3, 18), monthly_kpi_target=60, **numbers)
    stock_metrics(engine, "harbor", date(2026, 3, 17))
    stock_metrics(engine, "sloop", date(2026, 2, 28), positive_replies_mtd=0)
    stock_metrics(engine, "harbor", date(2026, 3, 18), metric_type="ytd", positive_replies_mtd=9999)


def dated(frame: pd.DataFrame) -> list[tuple[str, str]]:
    return list(zip(frame["workspace"], frame["metric_date"].dt.strftime("%m-%d"), strict=True))


@pytest.mark.usefixtures("_stocked")
def test_rows_come_by_client_and_date_and_those_of_inactive_clients_too(engine: Engine) -> None:
    frame = read_metrics(engine)
    assert dated(frame) == [
        ("harbor", "03-17"),
        ("harbor", "03-18"),
        ("quay", "03-17"),
        ("sloop", "02-28"),
    ]
    assert frame["display_name"].tolist() == ["Harbor & Co", "Harbor & Co", "Quay", "Sloop"]


@pytest.mark.usefixtures("_stocked")
def test_dates_and_clients_bound_the_rows(engine: Engine) -> None:
    march_17 = date(2026, 3, 17)
    assert dated(read_metrics(engine, march_17, march_17)) == [
        ("harbor", "03-17"),
        ("quay", "03-17"),
    ]
    assert dated(read_metrics(engine, last=date(2026, 3, 1))) == [("sloop", "02-28")]
    assert dated(read_metrics(engine, date(2026, 3, 18))) == [("harbor", "03-18")]
    assert dated(read_metrics(engine, workspaces=["sloop"])) == [("sloop", "02-28")]
    with pytest.raises(KpiError, match=r"There is no client nobody, noone\."):
        read_metrics(engine, workspaces=["quay", "noone", "nobody"])


@pytest.mark.usefixtures("_stocked")
@pytest.mark.parametrize("rows", ["some", "none"])
def test_the_types_of_the_columns_are_the_same_with_and_without_rows(
    engine: Engine, rows: str
) -> None:
    frame = read_metrics(engine, date(2026, 1, 1) if rows == "some" else date(2030, 1, 1))
    assert frame.empty == (rows == "none")
    left_out = {"workspace_name", "metric_type"}
    assert {*frame.columns} == {column.name for column in client_metrics.c} - left_out
    texts = {"workspace", "display_name", "source"}
    for name, kind in frame.dtypes.items():
        if name in texts:
            expected = "str"
        elif name in {"as_of", "updated_at"}:
            expected = "datetime64[us, UTC]"
        elif name == "metric_date":
            expected = "datetime64[s]"
        else:
            expected = "float64" if name in PERCENTAGES else "Int64"
        assert str(kind) == expected, name


@pytest.mark.usefixtures("_stocked")
def test_values_are_those_of_the_table_and_null_is_missing_and_no_zero(engine: Engine) -> None:
    frame = read_metrics(engine)
    unknown, row = (it for _, it in frame[frame["workspace"] == "harbor"].iterrows())
    assert (row["emails_sent_mtd"], row["mtd_leads_progress"]) == (2**53 + 1, 33.33)
    assert (row["monthly_kpi_target"], row["as_of"]) == (60, pd.Timestamp(AS_OF))
    for name in ("emails_sent_mtd", "mtd_leads_progress", "monthly_kpi_target"):
        assert pd.isna(unknown[name]), name
    assert frame["positive_replies_mtd"].sum() == 7
    assert frame["positive_replies_mtd"].isna().sum() == 2


@pytest.mark.usefixtures("_stocked")
def test_rows_that_are_read_in_parts_make_one_frame(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = read_metrics(engine)
    monkeypatch.setattr(frames, "_ROWS_AT_ONCE", 3)
    pd.testing.assert_frame_equal(read_metrics(engine), whole)


@pytest.mark.usefixtures("_stocked")
def test_a_notebook_reads_with_the_settings_of_the_command(
    database: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = database.set(drivername="postgresql").render_as_string(hide_password=False)
    settings = Settings(database_url=SecretStr(address))
    assert len(read_metrics(settings)) == 4
    monkeypatch.setenv("KPI_DATABASE_URL", address)
    assert len(read_metrics(workspaces=["harbor"])) == 2


def test_no_other_module_imports_pandas() -> None:
    package = Path(kpi_pipeline.__file__).parent
    # Commands import it when they run, to write what a frame holds.
    allowed = {
        package / "frames.py",
        package / "cli" / "export.py",
        package / "cli" / "accuracy.py",
    }
    others = [file for file in package.rglob("*.py") if file not in allowed]
    tops = {module.split(".")[0] for module in modules_in(others, package)}
    assert tops & {"pandas", "numpy", "pyarrow", "openpyxl"} == set()


_HOT_PATH = """
import sys
import kpi_pipeline.cli.main
import kpi_pipeline.definitions
import kpi_pipeline.gateway.server
import kpi_pipeline.inbox.apply
import kpi_pipeline.sync.run
kpi_pipeline.definitions.defs()
print(*sorted({"pandas", "numpy", "pyarrow", "kpi_pipeline.frames"} & sys.modules.keys()))
"""


def test_definitions_runs_and_the_gateway_import_no_pandas() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _HOT_PATH], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
