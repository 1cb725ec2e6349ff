"""What Dagster loads, and what loading needs."""

import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from kpi_pipeline.db.tables import metadata
from kpi_pipeline.definitions import build_definitions
from kpi_pipeline.orchestration.assets.specs import kpi_specs
from kpi_pipeline.settings import load_settings

ASSETS = {
    "client_registry": ("bison", {"api", "postgres"}, set()),
    "webhook_events": ("bison", {"webhook", "postgres"}, set()),
    "raw_bison_stats": ("bison", {"api", "postgres"}, set()),
    "kpi_projections": ("kpis", {"postgres"}, {"raw_bison_stats"}),
    # Were it downstream of one of the first two, each night, or each event, would make every row of
    # the past "unsynced".
    "client_metrics": ("kpis", {"postgres", "table"}, {"kpi_projections"}),
    # Were it downstream of client_metrics, each lead would make it "unsynced".
    "agency_totals": ("kpis", {"postgres"}, set()),
}
UNPARTITIONED = ("client_registry", "webhook_events", "agency_totals")
# agency_totals has no table.
TABLES = {name: name for name in ASSETS if name != "agency_totals"}
TABLES["client_registry"] = "clients"


@pytest.fixture(scope="module")
def definitions() -> dg.Definitions:
    # The settings' defaults; the rest of the environment is another test's matter.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KPI_ENV_FILE", "")
        return build_definitions(load_settings())


@pytest.fixture(scope="module")
def specs(definitions: dg.Definitions) -> dict[str, dg.AssetSpec]:
    return {spec.key.to_user_string(): spec for spec in definitions.resolve_all_asset_specs()}


def test_these_assets_are_loaded_in_these_groups_and_no_others(
    specs: dict[str, dg.AssetSpec],
) -> None:
    found = {
        name: (spec.group_name, spec.kinds, {dep.asset_key.to_user_string() for dep in spec.deps})
        for name, spec in specs.items()
    }
    assert found == ASSETS


def test_every_asset_has_an_owner_and_a_description(specs: dict[str, dg.AssetSpec]) -> None:
    for name, spec in specs.items():
        assert spec.owners == ["team:campaign-analytics"], name
        assert spec.description is not None
        assert spec.description.endswith("."), name


def test_the_catalogue_shows_the_columns_of_the_real_tables(
    specs: dict[str, dg.AssetSpec],
) -> None:
    for name, table_name in TABLES.items():
        spec, table = specs[name], metadata.tables[table_name]
        assert spec.metadata["dagster/table_name"] == table.name
        schema = spec.metadata["dagster/column_schema"]
        assert [(it.name, it.type, it.constraints.nullable) for it in schema.columns] == [
            (it.name, str(it.type), it.nullable) for it in table.columns
        ]


def test_three_assets_share_one_grid_and_one_step_and_can_be_run_alone(
    definitions: dg.Definitions,
) -> None:
    partitioned = [name for name in ASSETS if name not in UNPARTITIONED]
    (step,) = {definitions.resolve_assets_def(name) for name in partitioned}
    assert isinstance(step.partitions_def, dg.MultiPartitionsDefinition)
    assert step.partitions_def.partition_dimension_names == ["date", "workspace"]
    assert step.can_subset
    assert step.backfill_policy == dg.BackfillPolicy.single_run()
    for name in UNPARTITIONED:
        assert definitions.resolve_assets_def(name).partitions_def is None


def test_no_job_over_partitioned_assets_has_a_page_whose_backfills_would_fill_the_wrong_ones(
    definitions: dg.Definitions,
) -> None:
    selecting = {
        job.name
        for job in definitions.resolve_all_job_defs()
        for key in job.asset_layer.executable_asset_keys
        if job.asset_layer.get(key).partitions_def is not None
    }
    assert selecting
    assert all(name.startswith("__") for name in selecting), "Dagster's own, and hidden"


def test_the_definitions_are_whole_without_a_database_or_email_bison(
    definitions: dg.Definitions,
) -> None:
    assert load_settings().database_url is None
    assert load_settings().bison_instances == ()

    dg.Definitions.validate_loadable(definitions)


_LOAD = """
import os, sys
from kpi_pipeline.definitions import defs
from kpi_pipeline.errors import KpiError
print("imported")
os.environ["KPI_TIMEZONE"] = "Mars/Olympus"
try:
    defs()
except KpiError as error:
    print(error)
del os.environ["KPI_TIMEZONE"]
defs()
print("loaded")
heavy = {"pandas", "numpy", "httpx", "cryptography", "psycopg", "starlette", "uvicorn"}
heavy |= {"apprise"}
print(*sorted(heavy & sys.modules.keys()))
"""


@pytest.mark.server
def test_the_environment_is_read_on_loading_which_needs_no_address_secret_or_module_of_a_run() -> (
    None
):
    done = subprocess.run(
        [sys.executable, "-c", _LOAD], capture_output=True, text=True, timeout=180, check=False
    )

    imported, *problem, loaded, heavy = done.stdout.splitlines()
    assert (imported, loaded) == ("imported", "loaded"), done.stderr
    assert "KPI_TIMEZONE: 'Mars/Olympus' is not a time zone" in "".join(problem)
    # Dagster's page and daemon load the definitions too, and each run waits for them.
    assert heavy == ""


def test_every_column_of_every_asset_has_a_description(specs: dict[str, dg.AssetSpec]) -> None:
    undescribed = [
        f"{name}.{column.name}"
        for name, spec in specs.items()
        if (schema := spec.metadata.get("dagster/column_schema")) is not None
        for column in schema.columns
        if not column.description
    ]
    assert undescribed == []


def test_each_asset_leads_to_its_code_and_to_a_document(specs: dict[str, dg.AssetSpec]) -> None:
    for name, spec in specs.items():
        (reference,) = spec.metadata["dagster/code_references"].code_references
        assert isinstance(reference, dg.LocalFileCodeReference)
        assert "kpi_pipeline/orchestration/assets/" in reference.file_path, name
        assert Path(spec.metadata["documentation"].path).is_file(), name


def test_the_partitioned_assets_lead_to_the_email_bison_of_the_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KPI_ENV_FILE", "")
    monkeypatch.setenv("KPI_BISON_INSTANCES", "main https://bison.example")
    for spec in kpi_specs(load_settings()):
        assert spec.metadata["email_bison"].value == "[main](https://bison.example)"


@pytest.mark.parametrize(
    ("name", "value", "url"),
    [
        ("KPI_DASHBOARD_URL", "https://kpi.agency.example", "https://kpi.agency.example"),
        ("KPI_DASHBOARD_PORT", "3005", "http://127.0.0.1:3005"),
        ("KPI_DASHBOARD_PORT", "0", None),
    ],
)
def test_the_partitioned_assets_lead_to_the_dashboard(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, url: str | None
) -> None:
    monkeypatch.setenv("KPI_ENV_FILE", "")
    monkeypatch.delenv("KPI_DASHBOARD_PORT", raising=False)
    monkeypatch.setenv(name, value)
    for spec in kpi_specs(load_settings()):
        link = spec.metadata.get("dashboard")
        assert (None if link is None else link.value) == url
