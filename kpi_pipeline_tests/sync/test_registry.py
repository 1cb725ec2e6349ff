"""The registry against Bison's own list of workspaces, and each key against its workspace."""

import asyncio
import socket
from dataclasses import replace
from datetime import timedelta

from pydantic import SecretStr

from kpi_pipeline.db.registry.vault import Vault, new_secret_key
from kpi_pipeline.db.tables import clients
from kpi_pipeline.instances import InstanceSetting
from kpi_pipeline.sync.registry import RegistryReport, refresh_registry
from kpi_pipeline_tests.agency import WHO_AM_I, Agency, Bystander
from kpi_pipeline_tests.bison_sandbox.running import TODAY, Stage
from kpi_pipeline_tests.conftest import NOW, instance_of
from kpi_pipeline_tests.db.stocked import api_key, imported, record

LATER = NOW + timedelta(hours=1)


def refresh(agency: Agency) -> RegistryReport:
    return asyncio.run(refresh_registry(agency.app))


def names(agency: Agency) -> dict[str, str]:
    return {row["workspace"]: row["name"] for row in agency.table(clients)}


def test_a_registry_that_fits_has_nothing_to_report(agency: Agency) -> None:
    report = refresh(agency)

    assert report == RegistryReport(active=agency.workspaces, listed=26)
    assert {row["seen_in_bison_at"] for row in agency.table(clients)} == {NOW}
    assert agency.verified_at(agency.keyed) == dict.fromkeys(agency.keyed, NOW)


def test_an_unregistered_workspace_is_reported_and_not_added(agency: Agency) -> None:
    answer = agency.bison.http.post("/sandbox/workspaces", json={"name": "  Newcomer Ltd "})
    number = answer.json()["id"]

    report = refresh(agency)

    assert report.unknown == [f"main {number}: Newcomer Ltd"]
    assert report.listed == 27
    assert report.active == agency.workspaces
    assert len(agency.table(clients)) == 26


def test_a_new_name_is_adopted_in_every_row_and_the_workspace_stays(agency: Agency) -> None:
    slug = agency.keyed[0]
    before = names(agency)
    agency.synced([TODAY], [slug])
    agency.rename(slug, "Quite Another Name ")

    report = refresh(agency)

    assert report.renamed == [f"{slug}: {before[slug]} → Quite Another Name"]
    assert names(agency) == before | {slug: "Quite Another Name"}
    ((key, row),) = agency.rows().items()
    assert key == (slug, TODAY)
    assert row["workspace_name"] == "Quite Another Name"


def test_spaces_around_a_name_are_no_new_name(agency: Agency) -> None:
    slug = agency.keyed[0]
    before = names(agency)
    agency.rename(slug, f"  {before[slug]} ")

    assert refresh(agency).renamed == []

    assert names(agency) == before


def test_a_client_that_bison_no_longer_lists_stays_and_is_reported(agency: Agency) -> None:
    gone = agency.keyless[0]
    agency.delete(gone)

    report = refresh(agency)

    name = names(agency)[gone]
    assert report.vanished == [f"{gone}: main {agency.ids[gone]}, {name}"]
    assert gone in report.active
    seen = {row["workspace"]: row["seen_in_bison_at"] for row in agency.table(clients)}
    assert {slug for slug, at in seen.items() if at is None} == {gone}


def test_a_client_that_is_not_active_is_neither_missed_nor_checked(agency: Agency) -> None:
    idle = record(4, "Former Client", active=False, api_key=api_key(1))
    imported(agency.app.engine, agency.app.vault, idle)

    report = refresh(agency)

    assert report.vanished == report.bad_keys == []
    assert "former-client" not in report.active
    assert agency.verified_at(["former-client"]) == {"former-client": None}


def test_a_rejected_key_is_reported_and_waits_to_be_compared_again(agency: Agency) -> None:
    refresh(agency)
    rejected = agency.keyed[6]
    agency.revoke(rejected)

    report = refresh(agency)

    (line,) = report.bad_keys
    assert line.startswith(f"{rejected}: GET {WHO_AM_I} answered 401")
    assert "Give the client a valid api_key" in line
    assert str(agency.key(rejected)).split("|")[1] not in line
    verified = agency.verified_at(agency.keyed)
    assert {slug for slug, at in verified.items() if at is None} == {rejected}


def test_a_key_of_another_workspace_is_reported_and_loses_its_mark(agency: Agency) -> None:
    mixed_up, owner = agency.keyed[2:4]
    agency.give_key(mixed_up, str(agency.key(owner)), verified_at=NOW)

    report = refresh(agency)

    (line,) = report.bad_keys
    assert line.startswith(f"{mixed_up}: ")
    assert str(agency.ids[mixed_up]) in line
    assert str(agency.ids[owner]) in line
    assert agency.verified_at([mixed_up, owner]) == {mixed_up: None, owner: NOW}


def test_a_key_under_another_encryption_key_is_reported_and_the_others_are_checked(
    agency: Agency,
) -> None:
    stranger, slug = Vault(SecretStr(new_secret_key())), agency.keyed[4]
    other = agency.with_app(vault=stranger)
    other.give_key(slug, str(agency.key(slug)))

    report = refresh(agency)

    (line,) = report.bad_keys
    assert slug in line
    assert "KPI_SECRET_KEY" in line
    verified = agency.verified_at(agency.keyed)
    assert {slug for slug, at in verified.items() if at is None} == {slug}


def test_an_outage_says_nothing_of_a_key_and_leaves_it_its_mark(
    agency: Agency, stage: Stage
) -> None:
    refresh(agency)
    slug = agency.keyed[1]
    stage.app = Bystander(stage.app, str(agency.key(slug)), WHO_AM_I, 503, b"")

    report = refresh(agency.moved_to(LATER))

    (line,) = report.unchecked_keys
    assert line.startswith(f"{slug}: GET {WHO_AM_I} answered 503")
    assert report.bad_keys == []
    assert agency.verified_at(agency.keyed[:2]) == {agency.keyed[0]: LATER, slug: NOW}


def test_without_a_master_key_the_keys_are_checked_all_the_same(agency: Agency) -> None:
    agency.revoke(agency.keyed[0])
    agency = agency.with_settings(
        bison_instances=(replace(instance_of(agency.bison), master_key=None),)
    )

    report = refresh(agency)

    (line,) = report.not_listed
    assert line.startswith("main: ")
    assert "KPI_BISON_INSTANCES" in line
    assert report.vanished == [], "what was not listed has not vanished"
    assert report.listed == 0
    assert len(report.bad_keys) == 1
    assert report.active == agency.workspaces
    assert sum(at == NOW for at in agency.verified_at(agency.keyed).values()) == 22


def test_a_list_that_cannot_be_read_changes_nothing(agency: Agency) -> None:
    agency.rename(agency.keyed[0], "Quite Another Name")
    before = agency.table(clients)
    foreign = agency.with_settings(
        bison_instances=(replace(instance_of(agency.bison), master_key=api_key(77)),)
    )

    (line,) = refresh(foreign).unread

    assert line.startswith("instance main: ")
    assert "a valid super-admin key in KPI_BISON_INSTANCES" in line
    assert agency.table(clients) == before
    assert set(agency.verified_at(agency.keyed).values()) == {None}


def test_an_instance_that_is_down_keeps_no_other_from_being_compared(agency: Agency) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        address = f"http://127.0.0.1:{nobody.getsockname()[1]}"
    down = InstanceSetting("down", address, api_key(77))
    slug = agency.keyed[0]
    agency.rename(slug, "Quite Another Name")

    report = refresh(agency.with_settings(bison_instances=(down, instance_of(agency.bison))))

    (line,) = report.unanswered
    assert report.unread == []
    assert line.startswith("instance down: ")
    assert names(agency)[slug] == "Quite Another Name"
    assert set(agency.verified_at(agency.keyed).values()) == {NOW}


def test_without_any_instance_the_active_clients_are_known_all_the_same(agency: Agency) -> None:
    report = refresh(agency.with_settings(bison_instances=()))

    unserved = [f"{key}: its instance main is not configured" for key in agency.workspaces]
    assert report == RegistryReport(active=agency.workspaces, unserved=unserved)
    assert agency.calls() == {}


def test_a_client_without_a_key_and_without_a_master_key_is_unserved(
    agency: Agency,
) -> None:
    (instance,) = agency.app.settings.bison_instances
    report = refresh(agency.with_settings(bison_instances=(replace(instance, master_key=None),)))

    assert report.unserved == [
        f"{key}: it has no key, and main has no master key"
        for key in agency.workspaces
        if key not in agency.keyed
    ]
    assert report.bad_keys == []
