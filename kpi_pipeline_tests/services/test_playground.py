"""The webhooks of the demo: what `kpi --demo webhooks verify` says of them."""

import asyncio
from dataclasses import replace
from typing import cast

from pydantic import SecretStr

from kpi_pipeline.app import AppContext
from kpi_pipeline.db.registry.clients import active_clients
from kpi_pipeline.services.dagster_page import DagsterPage
from kpi_pipeline.services.playground import Playground, register_webhooks
from kpi_pipeline.sync.webhooks import verify_webhooks
from kpi_pipeline_tests.agency import open_agency
from kpi_pipeline_tests.bison_sandbox.running import Bison

GATEWAY = "http://127.0.0.1:9"


def test_the_demo_registers_all_counted_types_in_each_workspace(
    app: AppContext, bison: Bison
) -> None:
    agency = open_agency(app, bison)
    secret = {"main": SecretStr("a" * 32)}
    settings = app.settings.model_copy(update={"gateway_url": GATEWAY, "webhook_secret": secret})
    app = replace(app, settings=settings)
    page = cast(DagsterPage, None)
    play = Playground(app, agency.workspaces, str(bison.http.base_url), GATEWAY, None, page, [])

    register_webhooks(play)

    with app.engine.connect() as connection:
        outcomes = asyncio.run(verify_webhooks(app, active_clients(connection)))
    assert len(outcomes) == len(agency.workspaces)
    assert [(it.client.workspace, it.problems, it.error) for it in outcomes] == [
        (it.client.workspace, [], None) for it in outcomes
    ]
