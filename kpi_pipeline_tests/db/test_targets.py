import threading
from collections.abc import Sequence
from datetime import date
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine

from kpi_pipeline.db.day_zone import store_day_zone
from kpi_pipeline.db.facts import read_targets
from kpi_pipeline.db.recompute import write_rows
from kpi_pipeline.db.registry.targets import Targets, read_changes, set_targets
from kpi_pipeline.db.registry.vault import Vault
from kpi_pipeline.db.tables import client_targets, kpi_projections
from kpi_pipeline.errors import KpiError
from kpi_pipeline_tests.db.stocked import imported, record, rows_of, stock_facts
from kpi_pipeline_tests.db.support import run, until_somebody_waits

CHICAGO = ZoneInfo("America/Chicago")
FEBRUARY, MARCH, APRIL = (date(2026, month, 1) for month in (2, 3, 4))


def targets(engine: Engine, workspace: str = "harbor") -> list[tuple[date, Any]]:
    with engine.connect() as connection:
        found = read_targets(connection, [workspace])
    return sorted((target.holds_from, target.monthly_kpi_target) for target in found)


def targets_shown(engine: Engine, dates: Sequence[date]) -> dict[date, Any]:
    with engine.begin() as connection:
        write_rows(connection, {"harbor": dates}, CHICAGO, "sync")
        rows = rows_of(connection, kpi_projections)
    return {row["metric_date"]: row["monthly_kpi_target"] for row in rows}


def test_a_new_target_leaves_earlier_months_with_theirs(engine: Engine, vault: Vault) -> None:
    imported(engine, vault, record(monthly_kpi_target=60), targets_from=FEBRUARY)
    imported(engine, vault, record(monthly_kpi_target=90), targets_from=APRIL)
    days = [date(2026, 2, 28), date(2026, 3, 31), date(2026, 4, 1)]
    with engine.begin() as connection:
        stock_facts(connection, "harbor-analytics", date(2026, 1, 1), days[-1])
        write_rows(connection, {"harbor-analytics": days}, CHICAGO, "sync")
        rows = rows_of(connection, kpi_projections)
    assert {row["metric_date"]: row["monthly_kpi_target"] for row in rows} == {
        date(2026, 2, 28): 60,
        date(2026, 3, 31): 60,
        date(2026, 4, 1): 90,
    }


def test_recomputing_a_past_month_after_a_change_shows_its_own_target(
    engine: Engine, vault: Vault
) -> None:
    imported(engine, vault, record(name="Harbor", monthly_kpi_target=60), targets_from=FEBRUARY)
    with engine.begin() as connection:
        stock_facts(connection, "harbor", date(2026, 1, 1), date(2026, 3, 5))
    days = [date(2026, 2, 28), date(2026, 3, 5)]
    assert targets_shown(engine, days) == {days[0]: 60, days[1]: 60}
    imported(engine, vault, record(name="Harbor", monthly_kpi_target=90), targets_from=MARCH)
    assert targets_shown(engine, days) == {days[0]: 60, days[1]: 90}


def test_a_second_import_in_a_month_replaces_that_months_target(
    engine: Engine, vault: Vault
) -> None:
    imported(engine, vault, record(name="Harbor", monthly_kpi_target=60), targets_from=MARCH)
    imported(engine, vault, record(name="Harbor", monthly_kpi_target=75), targets_from=MARCH)
    assert targets(engine) == [(MARCH, 75)]


def test_a_target_set_for_an_earlier_month_leaves_the_later_one(
    engine: Engine, vault: Vault
) -> None:
    imported(engine, vault, record(name="Harbor", monthly_kpi_target=60), targets_from=MARCH)
    imported(engine, vault, record(name="Harbor", monthly_kpi_target=50), targets_from=FEBRUARY)
    assert targets(engine) == [(FEBRUARY, 50), (MARCH, 60)]


def test_a_target_that_was_taken_away_is_null_from_its_month_on(
    engine: Engine, vault: Vault
) -> None:
    imported(engine, vault, record(name="Harbor", monthly_kpi_target=60), targets_from=FEBRUARY)
    imported(engine, vault, record(name="Harbor", monthly_kpi_target=None), targets_from=MARCH)
    with engine.begin() as connection:
        stock_facts(connection, "harbor", date(2026, 1, 1), date(2026, 3, 5))
    days = [date(2026, 2, 28), date(2026, 3, 5)]
    assert targets_shown(engine, days) == {days[0]: 60, days[1]: None}


def test_both_targets_are_stored_under_their_own_names(engine: Engine, vault: Vault) -> None:
    imported(
        engine,
        vault,
        record(name="Harbor", monthly_kpi_target=60, monthly_sending_target=30_000),
        targets_from=MARCH,
    )
    with engine.connect() as connection:
        [row] = rows_of(connection, client_targets)
    assert (row["monthly_kpi_target"], row["monthly_sending_target"]) == (60, 30_000)


def test_targets_are_read_for_the_named_clients_alone(engine: Engine, vault: Vault) -> None:
    imported(
        engine,
        vault,
        record(101, "Harbor", monthly_kpi_target=60),
        record(102, "Quay", monthly_kpi_target=70),
        targets_from=MARCH,
    )
    assert targets(engine, "quay") == [(MARCH, 70)]
    assert targets(engine, "nobody") == []


def test_an_import_notes_its_changes_of_targets_in_the_history(
    engine: Engine, vault: Vault
) -> None:
    imported(engine, vault, record(name="Harbor", monthly_kpi_target=60), targets_from=MARCH)
    imported(engine, vault, record(name="Harbor", monthly_kpi_target=60), targets_from=MARCH)
    imported(engine, vault, record(name="Harbor", monthly_kpi_target=75), targets_from=MARCH)
    imported(engine, vault, record(name="Harbor", monthly_kpi_target=None), targets_from=APRIL)
    with engine.connect() as connection:
        history = read_changes(connection, "harbor")
    assert [(it.holds_from, it.before, it.after) for it in reversed(history)] == [
        (MARCH, None, Targets(60)),
        (MARCH, Targets(60), Targets(75)),
        (APRIL, None, Targets()),
    ]
    assert {it.changed_by for it in history} == {"import"}


def test_of_two_edits_of_a_client_at_once_the_second_waits_and_sees_the_first(
    engine: Engine, vault: Vault
) -> None:
    imported(engine, vault, record(name="Harbor", monthly_kpi_target=60), targets_from=MARCH)
    done: list[bool] = []

    def edit() -> None:
        with engine.begin() as connection:
            changed = set_targets(
                connection, "harbor", MARCH, Targets(75), changed_by="ada", zone=CHICAGO
            )
            done.append(changed)

    with engine.begin() as connection:
        set_targets(connection, "harbor", MARCH, Targets(75), changed_by="bob", zone=CHICAGO)
        thread = threading.Thread(target=edit)
        thread.start()
        run(until_somebody_waits(engine))
        assert done == []
    thread.join(30)
    assert done == [False], "the targets hold already"
    with engine.connect() as connection:
        assert [it.changed_by for it in read_changes(connection, "harbor")] == ["bob", "import"]


def test_an_edit_that_fails_leaves_targets_history_and_rows_as_they_were(
    engine: Engine, vault: Vault
) -> None:
    imported(engine, vault, record(name="Harbor", monthly_kpi_target=60), targets_from=MARCH)
    with engine.begin() as connection:
        store_day_zone(connection, ZoneInfo("UTC"))
    with pytest.raises(KpiError, match="UTC"), engine.begin() as connection:
        set_targets(connection, "harbor", MARCH, Targets(75), changed_by="ada", zone=CHICAGO)
    assert targets(engine) == [(MARCH, 60)]
    with engine.connect() as connection:
        assert len(read_changes(connection, "harbor")) == 1
