"""Frames for analysis: their types, and the accuracy of projections over hand-made rows."""

import subprocess
import sys
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

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
from kpi_pipeline.frames import projection_accuracy, read_accuracy, read_metrics
from kpi_pipeline.settings import Settings
from kpi_pipeline_tests.db.stocked import AS_OF, imported, record, stock_metrics
from kpi_pipeline_tests.test_layers import modules_in

JANUARY, FEBRUARY, MARCH = (date(2026, month, 1) for month in (1, 2, 3))


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


def judged_rows(
    *rows: tuple[str, date, Mapping[str, int | None]],
) -> pd.DataFrame:
    """Rows as `read_metrics` gives them, with just the columns that projections are judged by."""
    numbers = (
        *("projection_positive_replies_eom", "positive_replies_mtd"),
        *("projection_emails_eom", "emails_sent_mtd"),
    )
    return pd.DataFrame(
        {
            "workspace": pd.Series([it[0] for it in rows], dtype="str"),
            "metric_date": pd.Series([it[1] for it in rows], dtype="datetime64[s]"),
            **{
                name: pd.Series([it[2].get(name) for it in rows], dtype="Int64") for name in numbers
            },
        }
    )


def projected(replies: int | None, emails: int | None) -> dict[str, int | None]:
    # The sums so far are no projections: they are set to something else.
    return {
        "projection_positive_replies_eom": replies,
        "projection_emails_eom": emails,
        "positive_replies_mtd": 1,
        "emails_sent_mtd": 2,
    }


def brought(replies: int | None, emails: int | None) -> dict[str, int | None]:
    return {**projected(3, 4), "positive_replies_mtd": replies, "emails_sent_mtd": emails}


def month_of(workspace: str, first: date, last: int) -> list[tuple[str, date, dict[str, Any]]]:
    """A month of 120 and 90 projected replies, and 100 in the end; ten times as many emails."""
    return [
        (workspace, first.replace(day=10), projected(120, 1200)),
        (workspace, first.replace(day=20), projected(90, 900)),
        (workspace, first.replace(day=last), brought(100, 1000)),
    ]


def plain(accuracy: pd.DataFrame) -> list[dict[str, Any]]:
    months = accuracy["month"].dt.strftime("%Y-%m")
    with_none = accuracy.assign(month=months).astype(object).where(accuracy.notna(), None)
    return [{str(name): it for name, it in row.items()} for row in with_none.to_dict("records")]


EXACT = {
    "positive_replies_projected_10th": 120,
    "positive_replies_error_10th": 20.0,
    "positive_replies_projected_20th": 90,
    "positive_replies_error_20th": -10.0,
    "positive_replies_actual": 100,
    "emails_projected_10th": 1200,
    "emails_error_10th": 20.0,
    "emails_projected_20th": 900,
    "emails_error_20th": -10.0,
    "emails_actual": 1000,
}
NOTHING = dict.fromkeys(EXACT, None)


def test_projections_are_compared_with_what_their_own_month_brought() -> None:
    rows = judged_rows(
        *month_of("harbor", JANUARY, 31),
        # The day after, and the days beside the judged ones, belong to nothing.
        ("harbor", date(2026, 2, 1), brought(5000, 5000)),
        ("harbor", date(2026, 1, 9), projected(7000, 7000)),
        ("harbor", date(2026, 1, 30), brought(8000, 8000)),
    )
    assert plain(projection_accuracy(rows)) == [
        {"month": "2026-01", "workspace": "harbor", "clients": 1, **EXACT},
        {"month": "2026-01", "workspace": None, "clients": 1, **EXACT},
    ]


def test_months_of_each_length_end_on_their_own_last_day() -> None:
    february, leap, april = FEBRUARY, date(2024, 2, 1), date(2026, 4, 1)
    rows = judged_rows(
        *month_of("harbor", april, 30),
        *month_of("harbor", leap, 29),
        *month_of("harbor", february, 28),
    )
    found = plain(projection_accuracy(rows))
    assert [(row["month"], row["workspace"]) for row in found] == [
        (month, workspace)
        for month in ("2024-02", "2026-02", "2026-04")
        for workspace in ("harbor", None)
    ]
    for row in found:
        assert {name: row[name] for name in EXACT} == EXACT


def test_all_clients_add_up_those_of_which_all_numbers_are_known() -> None:
    rows = judged_rows(
        *month_of("harbor", JANUARY, 31),
        ("quay", date(2026, 1, 10), projected(30, 300)),
        ("quay", date(2026, 1, 20), projected(60, 600)),
        ("quay", date(2026, 1, 31), brought(50, 500)),
        # This one became a client on the 15th.
        ("sloop", date(2026, 1, 20), projected(1000, 1000)),
        ("sloop", date(2026, 1, 31), brought(2000, 2000)),
    )
    *_, sloop, everyone = plain(projection_accuracy(rows))
    assert sloop["positive_replies_projected_10th"] is None
    assert sloop["positive_replies_error_10th"] is None
    assert sloop["positive_replies_error_20th"] == -50.0
    assert (everyone["workspace"], everyone["clients"]) == (None, 2)
    assert everyone["positive_replies_projected_10th"] == 150
    assert everyone["positive_replies_projected_20th"] == 150
    assert everyone["positive_replies_actual"] == 150
    assert everyone["positive_replies_error_10th"] == 0.0
    assert everyone["emails_actual"] == 1500


@pytest.mark.parametrize(
    ("last", "actual"),
    [([], None), ([("harbor", date(2026, 1, 31), brought(None, None))], None)],
    ids=["no row of the last day", "a last day whose month has a gap"],
)
def test_what_is_not_known_is_missing_and_no_zero(
    last: list[tuple[str, date, dict[str, Any]]], actual: int | None
) -> None:
    rows = judged_rows(*month_of("harbor", JANUARY, 31)[:2], *last)
    harbor, everyone = plain(projection_accuracy(rows))
    assert harbor["positive_replies_projected_10th"] == 120
    assert harbor["positive_replies_actual"] is actual
    assert harbor["positive_replies_error_10th"] is None
    assert everyone == {"month": "2026-01", "workspace": None, "clients": 0, **NOTHING}


def test_a_month_that_brought_nothing_has_no_error_in_percent() -> None:
    rows = judged_rows(
        *month_of("harbor", JANUARY, 31)[:2], ("harbor", date(2026, 1, 31), brought(0, 3))
    )
    for row in plain(projection_accuracy(rows)):
        assert row["positive_replies_actual"] == 0
        assert row["positive_replies_error_10th"] is None
        assert row["emails_error_10th"] == 39900.0


def test_expected_clients_have_a_row_without_any_numbers() -> None:
    rows = judged_rows(*month_of("harbor", FEBRUARY, 28))
    expected = [(month, "quay") for month in (JANUARY, FEBRUARY)]
    found = plain(projection_accuracy(rows, expected))
    assert [(row["month"], row["workspace"], row["clients"]) for row in found] == [
        ("2026-01", "quay", 1),
        ("2026-01", None, 0),
        ("2026-02", "harbor", 1),
        ("2026-02", "quay", 1),
        ("2026-02", None, 1),
    ]
    assert {name: found[0][name] for name in NOTHING} == NOTHING
    assert {name: found[1][name] for name in NOTHING} == NOTHING
    assert {name: found[4][name] for name in EXACT} == EXACT


def test_without_rows_and_expected_clients_the_frame_is_empty() -> None:
    accuracy = projection_accuracy(judged_rows())
    assert accuracy.empty
    assert list(accuracy.columns) == ["month", "workspace", "clients", *EXACT]


@pytest.mark.usefixtures("_three_clients")
def test_the_months_before_todays_are_read_for_active_clients_and_those_with_rows(
    engine: Engine,
) -> None:
    for workspace, first, last in (
        ("harbor", date(2025, 12, 1), 31),
        ("harbor", JANUARY, 31),
        ("sloop", FEBRUARY, 28),
        ("quay", MARCH, 31),
    ):
        for _, day, numbers in month_of(workspace, first, last):
            stock_metrics(engine, workspace, day, **numbers)
    found = plain(read_accuracy(engine, today=date(2026, 3, 18), months=2))
    labels = ("Harbor & Co", "Quay", "Sloop", "All clients")
    harbor, quay, sloop, everyone = labels
    assert [
        (row["month"], row["display_name"], row["positive_replies_actual"]) for row in found
    ] == [
        ("2026-01", harbor, 100),
        ("2026-01", quay, None),
        ("2026-01", everyone, 100),
        ("2026-02", harbor, None),
        ("2026-02", quay, None),
        ("2026-02", sloop, 100),
        ("2026-02", everyone, 100),
    ]
    quay_alone = plain(read_accuracy(engine, today=date(2026, 3, 31), workspaces=["quay"]))
    assert [row["month"] for row in quay_alone if row["workspace"]] == [
        *("2025-12", "2026-01", "2026-02")
    ]


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
