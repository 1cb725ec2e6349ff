"""Dagster's page behind the guard: attacks over real HTTP and WebSockets, as `kpi up` serves it."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping

import httpx
import pytest
from sqlalchemy import URL
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection

from kpi_pipeline.db.server.addresses import kpi_address
from kpi_pipeline.errors import KpiError
from kpi_pipeline.orchestration.runtime.webserver import reads_only
from kpi_pipeline.services.dagster_home import child_environment
from kpi_pipeline.services.dagster_page import DagsterPage, PasswordNeededError, page_of
from kpi_pipeline.settings import Settings
from kpi_pipeline_tests.cli.running import address
from kpi_pipeline_tests.databases import KeptDatabase
from kpi_pipeline_tests.orchestration.page import (
    API_TOKEN,
    OPERATOR,
    READER,
    WEBSERVER,
    client_of,
    served_page,
    socket_of,
)

FOREIGN = "https://evil.example"
# It changes something, which the query shows.
MUTATION = 'mutation { setConcurrencyLimit(concurrencyKey: "kpi", limit: 5) }'
LIMITS = "{ instance { concurrencyLimits { concurrencyKey } } }"
_FIELD = MUTATION.removeprefix("mutation ")
MUTATIONS = [
    MUTATION,
    f"query A {{ version }} mutation B {_FIELD}",
    f"# query\nmutation M {{ ...F }} fragment F on Mutation {_FIELD}",
    f"fragment F on Mutation {_FIELD} mutation($a: Int) {{ ...F }}",
    f"{{ version }} mutation {_FIELD}",
]
JSON = "application/json"
SUBSCRIPTION = 'subscription { capturedLogs(logKey: ["a"]) { stdout } }'


@pytest.fixture(scope="module")
def settings(postgres: URL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    with served_page(postgres, tmp_path_factory.mktemp("page")) as settings:
        yield settings


@pytest.fixture(scope="module")
def page(settings: Settings) -> DagsterPage:
    return page_of(settings)


@pytest.fixture(scope="module")
def operator(settings: Settings) -> Iterator[httpx.Client]:
    with client_of(settings, OPERATOR) as client:
        yield client


@pytest.fixture(scope="module")
def reader(settings: Settings) -> Iterator[httpx.Client]:
    with client_of(settings, READER) as client:
        yield client


@pytest.fixture(autouse=True)
def _no_mutation_is_executed(page: DagsterPage) -> Iterator[None]:
    """Whatever a test of this file sends, but the one that may."""
    yield
    assert page.query(LIMITS, {})["instance"]["concurrencyLimits"] == []


pytestmark = [pytest.mark.server, pytest.mark.long]


def _kind_of_answer(socket: ClientConnection, query: str) -> str:
    """What the page sends first for a query over a WebSocket; it may close it on an error."""
    socket.send(json.dumps({"type": "start", "id": "1", "payload": {"query": query}}))
    try:
        return str(json.loads(socket.recv(timeout=60))["type"])
    except ConnectionClosed:
        return "closed"


def _sentence(response: httpx.Response) -> str:
    (error,) = response.json()["errors"]
    return str(error["message"])


def test_an_operators_program_may_change_what_the_page_may(
    settings: Settings, page: DagsterPage, operator: httpx.Client
) -> None:
    headers = {"origin": settings.local_page_url.removesuffix("/dagster")}
    assert page.query(MUTATION, {}) == {"setConcurrencyLimit": True}
    undo = {"query": 'mutation { deleteConcurrencyLimit(concurrencyKey: "kpi") }'}
    for more in (
        headers,
        {"sec-fetch-site": "same-origin"},
        {"content-type": f"{JSON}; charset=utf-8"},
    ):
        response = operator.post(
            "/graphql", content=json.dumps(undo), headers={"content-type": JSON, **more}
        )
        assert response.status_code == 200, response.text


@pytest.mark.parametrize("query", MUTATIONS)
def test_a_mutation_by_get_is_not_executed(operator: httpx.Client, query: str) -> None:
    for path in ("/graphql", "/graphql/"):
        response = operator.get(path, params={"query": query, "operationName": "B"})
        assert response.status_code == 405
        assert "send a mutation with POST" in _sentence(response)
    assert operator.get("/graphql", params={"query": "{ version }"}).json()["data"]


@pytest.mark.parametrize(
    "media_type",
    [
        "text/plain",
        "text/plain; application/json",
        "application/json-seq",
        "application/graphql",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=application/json",
        "",
    ],
)
def test_a_mutation_in_a_body_of_another_type_is_not_executed(
    operator: httpx.Client, media_type: str
) -> None:
    headers = {"content-type": media_type}
    for content in (MUTATION, json.dumps({"query": MUTATION})):
        response = operator.post("/graphql", content=content, headers=headers)
        assert response.status_code == 415
    response = operator.post("/graphql", params={"query": MUTATION}, headers=headers)
    assert response.status_code == 415


@pytest.mark.parametrize("host", ["evil.example", "evil.example:3000", "127.0.0.1.evil.example"])
def test_a_foreign_host_gets_no_answer(operator: httpx.Client, host: str) -> None:
    for headers in ({"host": host}, {"host": host, "x-forwarded-host": "localhost"}):
        response = operator.post("/graphql", json={"query": MUTATION}, headers=headers)
        assert response.status_code == 421
        assert "add it to KPI_WEB_HOSTS" in _sentence(response)


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": FOREIGN},
        {"origin": "null"},
        {"origin": "http://localhost:1"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": FOREIGN, "x-forwarded-host": "localhost"},
    ],
)
def test_a_foreign_page_changes_and_reads_nothing(
    operator: httpx.Client, headers: Mapping[str, str]
) -> None:
    assert operator.post("/graphql", json={"query": MUTATION}, headers=headers).status_code == 403
    for path in ("materialization", "observation", "check"):
        response = operator.post(f"/report_asset_{path}/acme", json={}, headers=headers)
        assert response.status_code == 403
    assert operator.get("/server_info", headers=headers).status_code == 403


def test_events_are_reported_as_json_by_an_operator_alone(
    operator: httpx.Client, reader: httpx.Client
) -> None:
    path = "/report_asset_materialization/acme"
    assert operator.post(path).status_code == 415
    assert reader.post(path, json={}).status_code == 403
    assert operator.post(path, json={}).status_code == 200


@pytest.mark.parametrize("query", MUTATIONS)
def test_a_reader_sees_a_sentence_in_place_of_a_mutation(reader: httpx.Client, query: str) -> None:
    response = reader.post("/graphql", json={"query": query})
    assert response.status_code == 403
    assert "You are logged in to read only." in _sentence(response)
    assert reader.post("/graphql", json={"query": "{ version }"}).json()["data"]["version"]


def test_the_page_greys_out_for_a_reader_what_changes_something(
    operator: httpx.Client, reader: httpx.Client
) -> None:
    query = {"query": "{ permissions { permission value } }"}
    allowed = {
        role: {
            it["permission"]
            for it in client.post("/graphql", json=query).json()["data"]["permissions"]
            if it["value"]
        }
        for role, client in (("operator", operator), ("reader", reader))
    }
    assert "launch_pipeline_execution" in allowed["operator"]
    assert allowed["reader"] == set()


@pytest.mark.parametrize(
    ("headers", "password", "status"),
    [
        ({"Origin": FOREIGN}, OPERATOR, 403),
        ({"Sec-Fetch-Site": "cross-site"}, OPERATOR, 403),
        ({"Host": "evil.example"}, OPERATOR, 421),
        ({}, None, 401),
        ({}, "not the password", 401),
    ],
)
def test_a_websocket_of_a_foreign_page_or_without_a_login_is_not_opened(
    settings: Settings, headers: dict[str, str], password: str | None, status: int
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        socket_of(settings, password, **headers)
    assert refused.value.response.status_code == status


@pytest.mark.parametrize("password", [OPERATOR, READER])
def test_a_websocket_reads_and_executes_no_mutation(settings: Settings, password: str) -> None:
    origin = settings.local_page_url.removesuffix("/dagster")
    with socket_of(settings, password, Origin=origin) as socket:
        assert _kind_of_answer(socket, SUBSCRIPTION) == "data"
    for query in MUTATIONS:
        with socket_of(settings, password) as socket:
            assert _kind_of_answer(socket, query) in ("error", "closed")


def test_the_page_is_its_own_and_in_no_frame(operator: httpx.Client) -> None:
    response = operator.get("/", headers={"accept": "text/html"})
    policies = response.headers.get_list("content-security-policy")
    assert "nonce-" in policies[0], "Dagster's own"
    assert policies[1] == "frame-ancestors 'none'"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "same-origin"


def test_every_route_of_dagster_needs_the_login(settings: Settings) -> None:
    with httpx.Client(base_url=settings.local_page_url) as stranger:
        for path in (
            *("/", "/assets/client_metrics", "/server_info", "/dagit_info", "/robots.txt"),
            *("/graphql?query={version}", "/logs/a/compute_logs/b.out", "/download_debug/a"),
            *("/notebook", "/_next/static", "/vendor", "/index.html"),
        ):
            assert stranger.get(path).status_code == 401, path


def test_our_commands_log_in_and_say_which_setting_they_lack(settings: Settings) -> None:
    assert page_of(settings).query("{ version }", {})["version"]
    without = DagsterPage(settings.local_page_url)
    assert not without.answers()
    with pytest.raises(PasswordNeededError, match="Set KPI_WEB_PASSWORD"):
        without.query("{ version }", {})
    with pytest.raises(KpiError, match="You are logged in to read only"):
        DagsterPage(settings.local_page_url, settings.web_reader_password).query(MUTATION, {})


def test_the_users_of_the_dashboard_log_in_here_too(settings: Settings) -> None:
    undo = {"query": 'mutation { deleteConcurrencyLimit(concurrencyKey: "none") }'}
    with httpx.Client(base_url=settings.local_page_url, timeout=60) as browser:
        form = {"name": "bob", "password": READER}
        assert browser.post("/login", data=form).status_code == 303
        assert browser.post("/graphql", json={"query": "{ version }"}).json()["data"]["version"]
        answer = browser.post("/graphql", json=undo)
        assert answer.status_code == 403
        assert "log in as an editor" in _sentence(answer)
    with httpx.Client(base_url=settings.local_page_url, auth=("ann", OPERATOR)) as editor:
        assert editor.post("/graphql", json=undo, timeout=60).status_code == 200


def test_an_api_token_reads_and_changes_nothing(settings: Settings) -> None:
    headers = {"authorization": f"Bearer {API_TOKEN}"}
    with httpx.Client(base_url=settings.local_page_url, headers=headers, timeout=60) as program:
        read = program.get("/graphql", params={"query": "{ version }"})
        assert read.json()["data"]["version"]
        assert program.get("/graphql", params={"query": MUTATION}).status_code == 405
        answer = program.post("/graphql", json={"query": MUTATION})
        assert answer.status_code == 403
        assert _sentence(answer) == "An API token reads, and changes nothing: send GET."


def test_where_users_log_in_our_commands_need_the_database_alone(settings: Settings) -> None:
    page = DagsterPage(settings.local_page_url, None, kpi_address(settings))
    assert page.answers()
    undo = 'mutation { deleteConcurrencyLimit(concurrencyKey: "none") }'
    assert "deleteConcurrencyLimit" in page.query(undo, {})


def test_a_page_that_others_reach_does_not_start_without_a_login(
    settings: Settings, postgres: URL
) -> None:
    without = settings.model_copy(
        update={"web_password": None, "web_reader_password": None, "web_address": "10.0.0.5"}
    )
    kept = KeptDatabase(postgres, "kpi_of_nobody", str(postgres.database))
    environment = {**child_environment(without), "KPI_DATABASE_URL": address(kept.url)}
    done = subprocess.run(
        [sys.executable, "-m", WEBSERVER],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    kept.drop()
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        "Error: KPI_WEB_ADDRESS: other machines reach the page at 10.0.0.5, so it needs a login"
    )


def test_the_log_and_the_command_line_show_no_password(settings: Settings) -> None:
    import psutil

    words = [
        it for process in psutil.process_iter(["cmdline"]) for it in process.info["cmdline"] or ()
    ]
    assert WEBSERVER in words
    shown = "\n".join([*words, (settings.state_dir / "page.log").read_text()])
    assert OPERATOR not in shown
    assert READER not in shown
    assert API_TOKEN not in shown


def test_a_document_that_cannot_be_read_is_no_mutation_that_dagster_would_execute() -> None:
    for other in (None, 5, ["{ version }"]):
        assert not reads_only(other)
    for broken in ("", "mutation {", "{a" * 100_000):
        assert reads_only(broken), "Dagster says what is wrong with it"


def test_a_body_that_is_no_object_changes_nothing(reader: httpx.Client) -> None:
    for content in (b"[]", b"{", b"[" * 100_000, b"\xff", b'{"query": 5}', b""):
        headers = {"content-type": JSON}
        assert reader.post("/graphql", content=content, headers=headers).status_code == 403
