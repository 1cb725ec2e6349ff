"""Dagster's page agrees with the table while webhooks change the rows."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from kpi_pipeline.domain.columns import PARTITION_COLUMNS, PERCENTAGES
from kpi_pipeline.orchestration.partitions import block_tags
from kpi_pipeline.services.dagster_page import RunStatus
from kpi_pipeline_tests.agency import ASSETS
from kpi_pipeline_tests.end_to_end.running import RunningAgency, running_agency

pytestmark = [pytest.mark.server, pytest.mark.long, pytest.mark.weekly]

_FIVE_MINUTES = 300
_SHOWN = """query ($partitions: [String!]) {
    assetNodeOrError(assetKey: {path: ["client_metrics"]}) { ... on AssetNode {
        latestMaterializationByPartition(partitions: $partitions) {
            partition metadataEntries { label ... on MarkdownMetadataEntry { mdStr } } } } } }"""


def disagreements(agency: RunningAgency) -> list[str]:
    """The clients whose partition of today shows other numbers than their row."""
    rows = {key: row for (key, day), row in agency.rows().items() if day == agency.today}
    partitions = [f"{agency.today}|{workspace}" for workspace in rows]
    node: Any = agency.page.query(_SHOWN, {"partitions": partitions})["assetNodeOrError"]
    shown = {
        it["partition"].partition("|")[2]: it["metadataEntries"][0]["mdStr"].splitlines()
        for it in node["latestMaterializationByPartition"]
        if it is not None
    }
    return [
        f"{workspace} {column}"
        for workspace, row in rows.items()
        for column in PARTITION_COLUMNS
        if f"|{column}|{_as_shown(column, row[column])}|" not in shown.get(workspace, [])
    ]


def _as_shown(column: str, value: Any) -> str:
    return "–" if value is None else f"{value:,}" + (" %" if column in PERCENTAGES else "")


def test_the_page_agrees_with_the_table_while_leads_arrive(
    postgres: URL, administer: Callable[[str], None], tmp_path: Path
) -> None:
    with running_agency(postgres, administer, tmp_path, takes_webhooks=True) as agency:
        # The leads are to happen after the facts were asked for.
        agency.bison.freeze(None)
        (secret,) = agency.app.settings.webhook_secret.values()
        url = f"{agency.gateway}/webhooks/bison/{secret.get_secret_value()}"
        agency.control("POST", "parent-hook", url=url)
        tags = block_tags(agency.workspaces, [agency.today])
        assert agency.run(ASSETS, tags)[0] is RunStatus.SUCCESS
        assert len(agency.rows()) == 26
        assert disagreements(agency) == []
        before = agency.rows()

        for count, workspace in enumerate(agency.workspaces, start=1):
            agency.control(
                "POST", "mark-interested", workspace_id=agency.ids[workspace], leads=count % 3 + 1
            )
        arrived = time.monotonic()
        agency.poll(
            lambda: all(
                row["positive_replies_mtd"] > before[key]["positive_replies_mtd"]
                for key, row in agency.rows().items()
            ),
            "the leads in the numbers",
        )
        assert disagreements(agency) != [], "or the test shows nothing"
        agency.poll(
            lambda: disagreements(agency) == [], "the leads on the page", _FIVE_MINUTES, every=2
        )
        assert time.monotonic() - arrived < _FIVE_MINUTES
