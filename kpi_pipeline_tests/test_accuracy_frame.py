"""The accuracy of projections as a frame: what they said, and what their months brought."""

from collections.abc import Mapping
from datetime import date
from typing import Any

import pandas as pd
import pytest
from sqlalchemy import Engine

from kpi_pipeline.db.registry.vault import Vault
from kpi_pipeline.frames import projection_accuracy, read_accuracy
from kpi_pipeline_tests.db.stocked import imported, record, stock_metrics

JANUARY, FEBRUARY, MARCH = (date(2026, month, 1) for month in (1, 2, 3))


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


def test_the_months_before_todays_are_read_for_active_clients_and_those_with_rows(
    engine: Engine, vault: Vault
) -> None:
    clients = record(101, "Harbor", display_name="Harbor & Co"), record(102, "Quay")
    imported(engine, vault, *clients, record(103, "Sloop", active=False))
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
