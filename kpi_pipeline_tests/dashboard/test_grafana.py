"""The dashboard for Grafana in deploy/grafana: well formed, and of metrics that are exported."""

import json
import re
from itertools import combinations
from typing import Any, Literal

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field

from kpi_pipeline_tests import PROJECT_ROOT

FOLDER = PROJECT_ROOT / "deploy" / "grafana"
COLUMNS = 24


class Part(BaseModel):
    """A part of Grafana's classic model of a dashboard: a name that it does not know is wrong."""

    model_config = ConfigDict(extra="forbid", strict=True)


class DataSource(Part):
    type: Literal["prometheus"]
    uid: Literal["${datasource}"]


class Target(Part):
    datasource: DataSource
    expr: str = Field(min_length=1)
    legendFormat: str  # noqa: N815
    refId: str = Field(pattern="^[A-Z]$")  # noqa: N815
    instant: bool
    range: bool
    format: Literal["time_series", "table"]


class Position(Part):
    h: int = Field(gt=0)
    w: int = Field(gt=0, le=COLUMNS)
    x: int = Field(ge=0, lt=COLUMNS)
    y: int = Field(ge=0)


class Step(Part):
    color: str
    value: float | None


class Thresholds(Part):
    mode: Literal["absolute"]
    steps: list[Step]


class Defaults(Part):
    unit: Literal["none", "s"]
    min: int
    color: dict[str, str] | None = None
    thresholds: Thresholds | None = None
    custom: dict[str, Any] = {}


class FieldConfig(Part):
    defaults: Defaults
    overrides: list[dict[str, Any]]


class Panel(Part):
    id: int
    type: Literal["stat", "timeseries", "state-timeline", "table"]
    title: str = Field(min_length=1)
    description: str = Field(min_length=1)
    datasource: DataSource
    gridPos: Position  # noqa: N815
    targets: list[Target] = Field(min_length=1)
    fieldConfig: FieldConfig  # noqa: N815
    options: dict[str, Any]
    transformations: list[dict[str, Any]] = []


class Dashboard(Part):
    uid: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,40}$")
    title: str
    description: str
    tags: list[str]
    schemaVersion: int = Field(ge=36)  # noqa: N815
    version: int
    editable: bool
    timezone: Literal["browser"]
    refresh: str
    graphTooltip: int  # noqa: N815
    time: dict[str, str]
    annotations: dict[str, list[Any]]
    links: list[Any]
    templating: dict[str, list[dict[str, Any]]]
    panels: list[Panel]


@pytest.fixture(scope="module")
def dashboard() -> Dashboard:
    return Dashboard.model_validate_json((FOLDER / "kpi.json").read_text())


def exported() -> dict[str, set[str]]:
    """The labels of each metric, as documented: another test holds that these are exported."""
    rows = re.findall(
        r"^\| `(kpi_\w+)` \| (.*?) ?\| ",
        (PROJECT_ROOT / "docs" / "monitoring.md").read_text(),
        flags=re.MULTILINE,
    )
    return {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}


def test_every_query_names_metrics_and_labels_that_are_exported(dashboard: Dashboard) -> None:
    known = exported()
    for panel in dashboard.panels:
        for target in panel.targets:
            metrics = re.findall(r"kpi_\w+", target.expr)
            assert metrics, target.expr
            for metric in metrics:
                assert metric in known, target.expr
                legend = set(re.findall(r"{{(\w+)}}", target.legendFormat))
                (braces,) = re.findall(r"{(.*?)}", target.expr)
                used = legend | set(re.findall(r"(\w+)=", braces))
                assert used - {"job"} <= known[metric], target.expr
                assert 'job="$job"' in target.expr, "two installations are not mixed"


def test_all_metrics_but_a_few_are_drawn(dashboard: Dashboard) -> None:
    drawn = set(re.findall(r"kpi_\w+", json.dumps([it.model_dump() for it in dashboard.panels])))
    # Each is said by another one that is drawn.
    assert exported().keys() - drawn == {
        "kpi_build_info",
        "kpi_sync_age_seconds",
        "kpi_check_age_seconds",
        "kpi_alert_mutes",
        "kpi_dagster_database_up",
        "kpi_part_running",
    }


def test_panels_have_their_own_places_and_ids(dashboard: Dashboard) -> None:
    assert len({it.id for it in dashboard.panels}) == len(dashboard.panels)
    for panel in dashboard.panels:
        assert panel.gridPos.x + panel.gridPos.w <= COLUMNS
        assert len({it.refId for it in panel.targets}) == len(panel.targets)
    for one, other in combinations([it.gridPos for it in dashboard.panels], 2):
        beside = one.x + one.w <= other.x or other.x + other.w <= one.x
        below = one.y + one.h <= other.y or other.y + other.h <= one.y
        assert beside or below


def test_the_provisioning_loads_it_with_a_data_source_of_its_type(dashboard: Dashboard) -> None:
    sources = yaml.safe_load((FOLDER / "provisioning/datasources/prometheus.yaml").read_text())
    providers = yaml.safe_load((FOLDER / "provisioning/dashboards/kpi.yaml").read_text())
    assert sources["apiVersion"] == providers["apiVersion"] == 1
    (source,), (provider,) = sources["datasources"], providers["providers"]
    assert source["type"] == "prometheus"
    assert provider["type"] == "file"
    assert f"`{provider['options']['path']}/`" in (FOLDER / "README.md").read_text()
    names = [it["name"] for it in dashboard.templating["list"]]
    assert names == ["datasource", "job"]
