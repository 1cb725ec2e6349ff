"""A client's own API key is verified before its numbers are used."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

from starlette.types import ASGIApp, Receive, Scope, Send

from kpi_pipeline.db.registry.api_keys import store_keys, stored_keys
from kpi_pipeline.db.registry.client_import import ClientRecord, plan_import, write_import
from kpi_pipeline.db.registry.clients import pick_clients
from kpi_pipeline.db.registry.clients_csv import parse
from kpi_pipeline.sync.keys import KeyOutcome, rotate_key
from kpi_pipeline_tests.agency import (
    PLANS,
    SERIES,
    WHO_AM_I,
    Agency,
    Bystander,
    errors,
    of_clients,
    write,
)
from kpi_pipeline_tests.bison_sandbox.running import TODAY, Stage
from kpi_pipeline_tests.conftest import NOW
from kpi_pipeline_tests.db.stocked import MARCH, api_key
from kpi_pipeline_tests.db.support import run, until_somebody_waits


def test_a_key_is_compared_with_the_registry_before_its_first_numbers_and_once(
    agency: Agency,
) -> None:
    keyed = agency.keyed[:6]
    assert set(agency.verified_at(agency.keyed).values()) == {None}

    agency.synced([TODAY], agency.keyless + keyed)

    calls = agency.calls()
    for slug in keyed:
        assert [it["path"] for it in calls[slug]] == [WHO_AM_I, SERIES, PLANS, PLANS]
    assert agency.verified_at(keyed) == dict.fromkeys(keyed, NOW)
    assert set(agency.verified_at(agency.keyed[6:]).values()) == {None}

    agency.forget_calls()
    agency.synced([TODAY], keyed)

    calls = agency.calls()
    for slug in keyed:
        assert [it["path"] for it in calls[slug]] == [SERIES, PLANS, PLANS]


def test_a_key_that_was_not_looked_at_for_a_day_is_compared_again(agency: Agency) -> None:
    slug, fresh = agency.keyed[:2]
    agency.synced([TODAY], [slug, fresh])
    agency.give_key(slug, str(agency.key(slug)), verified_at=NOW - timedelta(hours=27))
    agency.give_key(fresh, str(agency.key(fresh)), verified_at=NOW - timedelta(hours=25))
    agency.forget_calls()

    agency.synced([TODAY], [slug, fresh])

    assert [it["path"] for it in agency.calls()[slug]] == [WHO_AM_I, SERIES, PLANS, PLANS]
    assert [it["path"] for it in agency.calls()[fresh]] == [SERIES, PLANS, PLANS]
    assert agency.verified_at([slug]) == {slug: NOW}


def test_a_key_that_has_changed_hands_since_yesterday_writes_nothing(agency: Agency) -> None:
    slug, owner = agency.keyed[:2]
    agency.synced([TODAY], [slug])
    before = agency.all_rows()
    agency.give_key(slug, str(agency.key(owner)), verified_at=NOW - timedelta(hours=27))

    error = errors(agency.sync([TODAY], [slug]))[slug]

    assert str(agency.ids[slug]) in error
    assert str(agency.ids[owner]) in error
    assert agency.all_rows() == before
    assert agency.verified_at([slug]) == {slug: None}


def test_an_outage_while_a_key_is_looked_at_says_nothing_of_the_key(
    agency: Agency, stage: Stage
) -> None:
    slug = agency.keyed[0]
    yesterday = NOW - timedelta(hours=27)
    agency.give_key(slug, str(agency.key(slug)), verified_at=yesterday)
    stage.app = Bystander(stage.app, str(agency.key(slug)), WHO_AM_I, 503, b"")

    assert "answered 503" in errors(agency.sync([TODAY], [slug]))[slug]

    assert agency.verified_at([slug]) == {slug: yesterday}


def test_a_key_that_is_imported_again_is_compared_again_only_if_it_is_another_one(
    agency: Agency,
) -> None:
    slug, same = agency.keyed[:2]
    agency.synced([TODAY], [same])
    agency.give_key(slug, str(agency.key(same)), verified_at=NOW)
    text = agency.bison.http.get("/sandbox/clients.csv").text
    write(agency.app, parse(text, ["main"], "clients.csv"))
    agency.forget_calls()

    agency.synced([TODAY], [slug, same])

    assert agency.calls()[slug][0]["path"] == WHO_AM_I
    assert [it["path"] for it in agency.calls()[same]] == [SERIES, PLANS, PLANS]


def test_a_key_that_a_clock_running_ahead_has_verified_is_compared_again(agency: Agency) -> None:
    slug = agency.keyed[0]
    agency.give_key(slug, str(agency.key(slug)), verified_at=NOW + timedelta(hours=1))

    agency.synced([TODAY], [slug])

    assert agency.calls()[slug][0]["path"] == WHO_AM_I
    assert agency.verified_at([slug]) == {slug: NOW}


class RotatedMeanwhile:
    """Stores another key for a client whenever Email Bison is asked for the owner of one."""

    def __init__(
        self, app: ASGIApp, agency: Agency, workspace: str, verified_at: datetime | None
    ) -> None:
        self._app = app
        self._agency = agency
        self._workspace = workspace
        self._verified_at = verified_at

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("path") == WHO_AM_I:
            app, secrets = self._agency.app, {self._workspace: api_key(99)}
            with app.engine.begin() as connection:
                store_keys(connection, secrets, app.vault, verified_at=self._verified_at)
        await self._app(scope, receive, send)


def test_a_key_that_is_stored_while_another_one_is_compared_is_not_marked_as_verified(
    agency: Agency, stage: Stage
) -> None:
    slug = agency.keyed[0]
    stage.app = RotatedMeanwhile(stage.app, agency, slug, verified_at=None)

    agency.synced([TODAY], [slug])

    assert [it["path"] for it in agency.calls()[slug]] == [WHO_AM_I, SERIES, PLANS, PLANS]
    assert agency.verified_at([slug]) == {slug: None}


def test_the_rejection_of_a_key_says_nothing_of_one_that_was_stored_meanwhile(
    agency: Agency, stage: Stage
) -> None:
    slug = agency.keyed[0]
    agency.revoke(slug)
    stage.app = RotatedMeanwhile(stage.app, agency, slug, verified_at=NOW)

    assert "answered 401" in errors(agency.sync([TODAY], [slug]))[slug]

    assert agency.verified_at([slug]) == {slug: NOW}


def test_an_import_replaces_no_key_that_is_rotated_while_it_works(agency: Agency) -> None:
    slug, app = agency.keyed[0], agency.app
    with app.engine.connect() as connection:
        [client] = pick_clients(connection, [slug])
    imported = ClientRecord(client.instance, client.bison_workspace_id, slug, api_key=api_key(99))

    async def rotate() -> KeyOutcome:
        async with app.bison_client(app.instance(client.instance)) as bison:
            return await rotate_key(app, bison, client)

    with ThreadPoolExecutor() as threads:
        with app.engine.begin() as connection:
            plan = plan_import(connection, [imported], targets_from=MARCH, vault=app.vault)
            rotating = threads.submit(asyncio.run, rotate())
            run(until_somebody_waits(app.engine))
            write_import(connection, plan, vault=app.vault, zone=app.day_zone)
        number = rotating.result(60).number

    with app.engine.connect() as connection:
        key = stored_keys(connection, [slug], app.vault)[slug]
    assert (key.number, key.verified_at) == (number, NOW)
    assert number != "99"


def test_a_key_of_another_clients_workspace_fails_its_client_naming_both_and_writes_nothing(
    agency: Agency,
) -> None:
    mixed_up, owner = agency.keyed[3:5]
    agency.synced([TODAY], agency.some)
    before = agency.all_rows()
    key = agency.key(owner)
    assert key is not None
    agency.give_key(mixed_up, key)

    outcomes = agency.sync([TODAY], agency.some)

    ((slug, error),) = errors(outcomes).items()
    assert slug == mixed_up
    assert error.startswith(f"{mixed_up}: ")
    assert str(agency.ids[mixed_up]) in error
    assert str(agency.ids[owner]) in error
    assert "bison_workspace_id" in error
    assert "api_key" in error
    assert key.split("|")[1] not in error
    after = agency.all_rows()
    assert of_clients(after, [mixed_up]) == of_clients(before, [mixed_up])
    assert of_clients(after, [owner]) != of_clients(before, [owner])
    assert agency.verified_at([mixed_up]) == {mixed_up: None}


def test_a_foreign_key_is_asked_whose_it_is_and_nothing_else(agency: Agency) -> None:
    mixed_up, owner = agency.keyed[4], agency.keyed[5]
    agency.give_key(mixed_up, str(agency.key(owner)))

    assert errors(agency.sync([TODAY], [mixed_up])).keys() == {mixed_up}

    assert [call["path"] for call in agency.bison.calls()] == [WHO_AM_I]
