"""Dagster's page as `kpi up` serves it, in a process of its own, on an instance in files."""

import base64
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from sqlalchemy import URL, create_engine
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from kpi_pipeline.db.web import add_token, add_user
from kpi_pipeline.services.dagster_home import child_environment
from kpi_pipeline.services.dagster_page import page_of
from kpi_pipeline.services.processes import Child, free_port
from kpi_pipeline.settings import Settings
from kpi_pipeline.web.passwords import hash_password, new_api_token, token_hash
from kpi_pipeline_tests.cli.running import address
from kpi_pipeline_tests.databases import KeptDatabase

OPERATOR, READER = "operators-password", "readers-password"
API_TOKEN = new_api_token()
WEBSERVER = "kpi_pipeline.orchestration.runtime.webserver"


@contextmanager
def served_page(postgres: URL, folder: Path) -> Iterator[Settings]:
    """The settings of a page with two passwords, a path prefix, an editor `ann`, a viewer `bob`.

    API_TOKEN is the editor's.
    """
    kept = KeptDatabase(postgres, "kpi_of_a_page", str(postgres.database))
    engine = create_engine(kept.url)
    with engine.begin() as connection:
        add_user(connection, "ann", "editor", hash_password(OPERATOR))
        add_user(connection, "bob", "viewer", hash_password(READER))
        add_token(connection, "ann", "reports", token_hash(API_TOKEN))
    engine.dispose()
    settings = Settings.model_validate(
        {
            "state_dir": folder,
            "web_port": free_port(),
            "web_password": OPERATOR,
            "web_reader_password": READER,
            "web_path_prefix": "/dagster",
            "database_url": address(kept.url),
            "dagster_database_url": "postgresql://nobody@/nothing",
        }
    )
    home = folder / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    environment = {**child_environment(settings), "DAGSTER_HOME": str(home)}
    command = [sys.executable, "-m", WEBSERVER, "--empty-workspace"]
    with Child("The page", command, environment, folder / "page.log") as child:
        child.wait_until(page_of(settings).answers, 120)
        yield settings
    kept.drop()


def client_of(settings: Settings, password: str) -> httpx.Client:
    return httpx.Client(base_url=settings.local_page_url, auth=("", password), timeout=60)


def socket_of(
    settings: Settings, password: str | None = OPERATOR, **headers: str
) -> ClientConnection:
    """A WebSocket for subscriptions."""
    if password is not None:
        encoded = base64.b64encode(f":{password}".encode()).decode()
        headers["Authorization"] = f"Basic {encoded}"
    return connect(
        f"{settings.local_page_url.replace('http:', 'ws:')}/graphql",
        subprotocols=[Subprotocol("graphql-ws")],
        additional_headers=headers,
    )
