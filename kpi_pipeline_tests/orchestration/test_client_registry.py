"""The asset client_registry, by runs of the real definitions."""

from dataclasses import replace

import pytest
from sqlalchemy import text

from kpi_pipeline.checks.outcome import Check
from kpi_pipeline.db.check_results import read_outcomes
from kpi_pipeline.instances import format_instances
from kpi_pipeline.orchestration.partitions import WORKSPACE
from kpi_pipeline_tests.agency import write
from kpi_pipeline_tests.conftest import instance_of
from kpi_pipeline_tests.db.stocked import api_key, record
from kpi_pipeline_tests.orchestration.installation import Installation

pytestmark = pytest.mark.runs
REGISTRY = ["client_registry"]


def metadata_of(installation: Installation) -> dict[str, object]:
    """The metadata of the registry's latest materialization."""
    event = installation.instance.get_latest_materialization_event(
        installation.definitions.resolve_assets_def("client_registry").key
    )
    assert event is not None
    assert event.asset_materialization is not None
    return {name: value.value for name, value in event.asset_materialization.metadata.items()}


def test_the_grid_follows_the_active_clients(installation: Installation) -> None:
    agency, app = installation.agency, installation.agency.app
    first, *others = installation.workspaces
    retired = record(agency.ids[first], "Former Client", active=False)
    newcomer = record(4, "Newcomer Ltd")
    assert write(app, [retired, newcomer])[1] == "newcomer-ltd"
    installation.instance.add_dynamic_partitions(WORKSPACE, ["left-over"])

    assert installation.run(assets=REGISTRY).success

    grid = installation.instance.get_dynamic_partitions(WORKSPACE)
    assert list(grid) == [*others, "newcomer-ltd"], "those that stay keep their order"


def test_the_findings_of_the_comparison_are_in_the_metadata(installation: Installation) -> None:
    agency = installation.agency
    rejected, renamed, gone = agency.keyed[:3]
    agency.revoke(rejected)
    agency.rename(renamed, "Quite Another Name")
    agency.delete(gone)
    agency.bison.http.post("/sandbox/workspaces", json={"name": "Newcomer Ltd"})

    result = installation.run(assets=REGISTRY)

    assert result.success
    metadata = metadata_of(installation)
    numbers = {name: value for name, value in metadata.items() if isinstance(value, int)}
    assert numbers == {
        "dagster/row_count": 26,
        "active_clients": 26,
        "listed_workspaces": 26,
        "unknown_count": 1,
        "renamed_count": 1,
        "vanished_count": 1,
        # The deleted workspace's key answers no more, either.
        "bad_keys_count": 2,
        "unchecked_keys_count": 0,
        "not_listed_count": 0,
        "unserved_count": 0,
        "webhooks_count": 0,
        "unchecked_webhooks_count": 0,
    }
    assert "Newcomer Ltd" in str(metadata["unknown"])
    assert "Quite Another Name" in str(metadata["renamed"])
    assert gone in str(metadata["vanished"])
    assert rejected in str(metadata["bad_keys"])
    assert str(agency.key(rejected)).split("|")[1] not in str(metadata)


def test_the_webhooks_that_are_missing_are_in_the_metadata_and_in_the_check(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "invented-secret-of-the-instance-main"
    monkeypatch.setenv("KPI_GATEWAY_URL", "https://kpi.agency.example")
    monkeypatch.setenv("KPI_WEBHOOK_SECRET_MAIN", secret)

    assert installation.run(assets=REGISTRY).success

    metadata = metadata_of(installation)
    assert metadata["webhooks_count"] == 26
    keyless = installation.agency.keyless[0]
    line = f"- {keyless}: missing: no webhook has the gateway's address"
    assert line in str(metadata["webhooks"]).splitlines()
    with installation.agency.app.engine.connect() as connection:
        (outcome,) = read_outcomes(connection, [Check.REGISTRY_MATCHES_BISON])
    assert "Webhooks: `kpi webhooks register` creates missing ones" in outcome.description
    assert secret not in f"{metadata}{outcome}"


def test_a_list_that_cannot_be_read_fails_the_run_and_leaves_the_grid(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = replace(instance_of(installation.agency.bison), master_key=api_key(99))
    monkeypatch.setenv("KPI_BISON_INSTANCES", format_instances([foreign]))

    result = installation.run(assets=REGISTRY)

    assert not result.success
    error = installation.failure(result)
    assert error.startswith("instance main: ")
    assert "key in KPI_BISON_INSTANCES" in error
    grid = installation.instance.get_dynamic_partitions(WORKSPACE)
    assert list(grid) == installation.workspaces


def test_a_database_that_is_behind_fails_the_run_with_the_remedy(
    installation: Installation,
) -> None:
    with installation.agency.app.engine.begin() as connection:
        connection.execute(text("DELETE FROM alembic_version"))

    result = installation.run(assets=REGISTRY)

    assert not result.success
    assert "Run `kpi db upgrade`" in installation.failure(result)
