"""What a sync leaves behind beside the clients' rows: pauses, and fields that nobody knows."""

import asyncio
import logging

import pytest
from sqlalchemy import func, update

from kpi_pipeline.db.tables import bison_pacing, bison_unknown_fields, metadata
from kpi_pipeline.sync.registry import refresh_registry
from kpi_pipeline_tests.agency import PLANS, SERIES, SWITCH, WHO_AM_I, Agency, errors, of_clients
from kpi_pipeline_tests.sync.variants.cases import (
    DATES,
    LATER,
    Scene,
    Switch,
    assert_right,
    edited_to_other_id,
    fault,
    fault_of_all,
    import_key_again,
    right_rows_later,
    stored,
    three_clients,
    variant,
)


@pytest.mark.parametrize(
    "switches",
    [
        pytest.param(
            [fault("status", status=429, retry_after=False, times=1)], id="of one key's call"
        ),
        pytest.param(
            [variant(retry_after=False), fault_of_all("status", status=429, times=1)],
            id="by an instance that never sends it",
        ),
    ],
)
def test_a_429_without_retry_after_makes_every_client_wait_for_45_to_60_seconds(
    an_hour_later: Agency, switches: list[Switch]
) -> None:
    agency, clients = an_hour_later, three_clients(an_hour_later)
    victim, *others = clients
    before, numbers = stored(agency), right_rows_later(agency, clients)
    for switch in switches:
        switch(Scene(agency, victim, others[0]))

    # Another try would wait for the end of the pause.
    failed = errors(agency.with_settings(bison_attempts=1).sync(DATES, [victim]))

    assert failed.keys() == {victim}
    assert "answered 429 (Too Many Attempts) at try 1 of 1" in failed[victim]
    assert stored(agency) == before
    (pacing,) = agency.table(bison_pacing)
    assert 45 <= (pacing["next_free_at"] - pacing["updated_at"]).total_seconds() <= 60

    with agency.app.engine.begin() as connection:
        connection.execute(update(bison_pacing).values(next_free_at=func.clock_timestamp()))
    assert errors(agency.sync(DATES, [victim])) == {}
    assert_right(agency, numbers, [victim])
    assert of_clients(stored(agency), others) == of_clients(before, others)


def test_unknown_fields_change_no_number_and_are_reported_once(
    an_hour_later: Agency, caplog: pytest.LogCaptureFixture
) -> None:
    agency, clients = an_hour_later, three_clients(an_hour_later)
    numbers = right_rows_later(agency, clients)
    import_key_again(Scene(agency, *clients[:2]))
    agency.bison.variants(extra_fields=True, labels="one_unknown")

    with caplog.at_level(logging.WARNING, "kpi_pipeline"):
        agency.synced(DATES, clients)

    assert_right(agency, numbers, clients)
    (warning,) = caplog.messages
    counted = agency.table(bison_unknown_fields)
    fields = {(row["call"], row["field"]) for row in counted}
    assert {
        (f"GET {WHO_AM_I}", "data.workspace.undocumented_flag"),
        (f"POST {SWITCH}", "data.undocumented_flag"),
        (f"GET {SERIES}", "data[].label 'Auto Replies'"),
        (f"GET {SERIES}", "data[].undocumented"),
        (f"GET {PLANS}", "undocumented"),
    } <= fields
    assert all(f"{call}: {field}" in warning for call, field in fields)
    assert {row["first_seen_at"] for row in counted} == {LATER}
    of_series = {row["answers"] for row in counted if row["call"] == f"GET {SERIES}"}
    assert of_series == {len(clients)}

    caplog.clear()
    with caplog.at_level(logging.WARNING, "kpi_pipeline"):
        agency.synced(DATES, clients)

    assert caplog.messages == []
    again = agency.table(bison_unknown_fields)
    assert {(row["call"], row["field"]) for row in again} == fields
    of_series = {row["answers"] for row in again if row["call"] == f"GET {SERIES}"}
    assert of_series == {2 * len(clients)}


def test_no_secret_of_a_workspace_is_in_any_log_or_table(
    an_hour_later: Agency, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    agency, clients = an_hour_later, three_clients(an_hour_later)
    secrets = [_webhooks_secret(agency, slug) for slug in clients]
    scene = Scene(agency, *clients[:2])
    import_key_again(scene)
    agency.bison.variants(extra_fields=True)
    edited_to_other_id(WHO_AM_I, "/data/workspace/id")(scene)
    fault("status", PLANS, status=422, message=f"webhooks_secret_key: {secrets[1]}")(
        Scene(agency, clients[1], clients[0])
    )

    with caplog.at_level(logging.DEBUG):
        outcomes = agency.sync(DATES, clients)
        report = asyncio.run(refresh_registry(agency.app))

    assert errors(outcomes).keys() == {clients[0]}
    assert "webhooks_secret_key: ***" in str(outcomes[clients[1]].warning)
    tables = [agency.table(table) for table in metadata.sorted_tables]
    shown = [repr(outcomes), repr(report), repr(tables), caplog.text, *capfd.readouterr()]
    for secret in secrets:
        assert all(secret not in text for text in shown)


def _webhooks_secret(agency: Agency, slug: str) -> str:
    if not agency.key(slug):
        agency.bison.switch(agency.ids[slug])
    user = agency.bison.data(WHO_AM_I, key=agency.key(slug))
    return str(user["workspace"]["webhooks_secret_key"])
