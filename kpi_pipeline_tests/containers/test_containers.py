"""The image is built, compose.yaml is run, and Kubernetes' objects are played: all with podman."""

import csv
import io
import json
import os
import ssl
import time
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from kpi_pipeline.db.registry.vault import new_secret_key
from kpi_pipeline_tests import PROJECT_ROOT
from kpi_pipeline_tests.cli.running import wait_until
from kpi_pipeline_tests.containers.compose import Composed
from kpi_pipeline_tests.containers.podman import (
    PREFIX,
    SERVERS,
    build,
    remove_all,
    require_podman,
    run,
)

# Four minutes for two systems, and as long again on a machine that has no image yet.
pytestmark = [pytest.mark.long, pytest.mark.weekly, pytest.mark.server]

_HOST = "kpi.localhost"
_PASSWORD = "a made-up password"
_SECRET = "made-up-secret-of-the-webhooks"
_SUBNET = "10.213.97.0/24"
# What the entry points of the official images do.
_POSTGRES = """
set -e
data=/var/lib/postgresql/data
if [ ! -e $data/PG_VERSION ]; then
    chown postgres: $data
    setpriv --reuid=postgres --regid=postgres --init-groups sh -c "
        initdb -D $data -E UTF8 --locale=C.UTF-8 -U $POSTGRES_USER \\
            --pwfile=/dev/stdin -A scram-sha-256 >/dev/null &&
        echo 'host all all all scram-sha-256' >> $data/pg_hba.conf &&
        echo 'CREATE DATABASE $POSTGRES_DB' | postgres --single -D $data postgres >/dev/null
    " < /run/password
fi
exec setpriv --reuid=postgres --regid=postgres --init-groups \
    postgres -D $data -c listen_addresses='*' -k /tmp
"""
_CADDY = "exec caddy run --config /etc/caddy/Caddyfile --adapter caddyfile"
_SANDBOX = (
    "from bison_sandbox import SandboxOptions, serve;"
    "serve(SandboxOptions(host='0.0.0.0', port=8025, clients=3))"
)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The image, built from the Dockerfile as it is now; or the one that KPI_TEST_IMAGE names."""
    require_podman()
    remove_all()
    try:
        built = os.environ.get("KPI_TEST_IMAGE")
        yield built or build(tmp_path_factory.mktemp("image"))
    finally:
        remove_all()


@dataclass
class System:
    """The composed system with a sandbox as its Email Bison, and three clients."""

    composed: Composed
    tls: ssl.SSLContext
    client: str
    workspace_id: int
    secrets: list[str]

    def sandbox(self, path: str, body: object | None = None) -> Any:
        """Ask the sandbox's control, which answers in its own container alone."""
        return _ask_sandbox(path, body)

    def web(self) -> httpx.Client:
        """What the world reaches: the proxy."""
        return httpx.Client(
            base_url=f"https://{self.composed.addresses['proxy']}",
            headers={"Host": _HOST, "Origin": f"https://{_HOST}"},
            verify=self.tls,
            timeout=30,
            event_hooks={"request": [_name_the_host]},
        )

    def positive_replies(self, token: str) -> int:
        """Those of this month, as the dashboard's API has them for the client."""
        with self.web() as web:
            answer = web.get(
                "/api/client-metrics",
                params={"workspace": self.client, "from": _today(), "to": _today()},
                headers={"Authorization": f"Bearer {token}"},
            )
            assert answer.status_code == 200, answer.text
            rows = answer.json()["rows"]
            return int(rows[0]["positive_replies_mtd"]) if rows else 0


def _name_the_host(request: httpx.Request) -> None:
    request.extensions["sni_hostname"] = _HOST


def _today() -> str:
    return date.fromisoformat(_ask_sandbox("setup")["today"]).isoformat()


def _ask_sandbox(path: str, body: object | None = None) -> Any:
    code = (
        "import sys, urllib.request as it;"
        f"data = {json.dumps(body).encode()!r} if {body is not None} else None;"
        f"print(it.urlopen('http://127.0.0.1:8025/sandbox/{path}', data).read().decode())"
    )
    printed = run("podman", "exec", f"{PREFIX}sandbox", "python", "-c", code)
    return json.loads(printed) if path != "clients.csv" else printed


@pytest.fixture(scope="module")
def system(image: str, tmp_path_factory: pytest.TempPathFactory) -> System:
    """All services of compose.yaml run, as its first lines say."""
    folder = tmp_path_factory.mktemp("composed")
    password = folder / "password"
    password.write_text("madeUpPassword")
    composed = Composed(
        {
            "IMAGE": image,
            "POSTGRES_PASSWORD": "madeUpPassword",
            "PUBLIC_HOST": _HOST,
            "SUBNET": _SUBNET,
        },
        folder / ".env",
        {"postgres": SERVERS, "proxy": SERVERS},
        {"postgres": ["sh", "-c", _POSTGRES], "proxy": ["sh", "-c", _CADDY]},
        {"postgres": ["-v", f"{password}:/run/password:ro"]},
        {_HOST: "proxy"},
    )
    composed.create_network()
    composed.start("proxy")
    authority = "/data/caddy/pki/authorities/local/root.crt"
    wait_until(
        lambda: composed.has_file("proxy", authority), "the certificate of the proxy", 30, 0.5
    )
    certificate = folder / "root.crt"
    certificate.write_text(run("podman", "exec", f"{PREFIX}proxy", "cat", authority))
    run(
        *("podman", "run", "-d", "--name", f"{PREFIX}sandbox", *composed.network_of("sandbox")),
        *("-v", f"{certificate}:/run/root.crt:ro", "-e", "SSL_CERT_FILE=/run/root.crt"),
        *(image, "python", "-c", _SANDBOX),
    )
    wait_until(lambda: composed.listens("sandbox", 8025), "the sandbox", 30, 0.5)
    setup, clients = _ask_sandbox("setup"), _ask_sandbox("clients.csv")
    secret_key = new_secret_key()
    composed.env_file.write_text(
        f"KPI_BISON_INSTANCES=main http://sandbox:8025 {setup['master_key']}\n"
        f"KPI_WEBHOOK_SECRET_MAIN={_SECRET}\n"
        f"KPI_SECRET_KEY={secret_key}\n"
        f"KPI_TIMEZONE={setup['timezone']}\n"
        f"KPI_BISON_TIMEZONE={setup['timezone']}\n"
        f"KPI_FIRST_DATE={setup['today'][:8]}01\n"
    )
    rows = list(csv.DictReader(io.StringIO(clients)))
    for service in ("postgres", "upgrade"):
        composed.start_when_ready(service)
    composed.command(
        *("kpi", "users", "add", "ann", "--role", "editor", "--password-stdin"), stdin=_PASSWORD
    )
    composed.command("kpi", "clients", "import", "/dev/stdin", stdin=clients)
    composed.up()
    composed.await_healthy("gateway", "dashboard", "page", "proxy", "daemon")
    return System(
        composed,
        ssl.create_default_context(cafile=str(certificate)),
        rows[0]["name"].strip().lower().replace(" ", "-"),
        int(rows[0]["bison_workspace_id"]),
        [_SECRET, setup["master_key"], secret_key, "madeUpPassword", _PASSWORD],
    )


def test_the_image_holds_what_runs_and_nothing_that_built_it(image: str) -> None:
    def within(*words: str) -> str:
        return run("podman", "run", "--rm", "--network", "none", image, *words)

    assert within("id", "-u").strip() == "10001"
    assert within("kpi", "--version").startswith("kpi_pipeline ")
    found = within(
        "sh", "-c", "ls /mnt /opt/kpi/bin /src 2>/dev/null; command -v gcc cc make pip || :"
    )
    for name in ("gcc", "make", "pip", "pyproject.toml"):
        assert name not in found.split()
    assert ".whl" not in found
    assert "PIP_" not in run("podman", "history", "--no-trunc", image)
    assert within("sh", "-c", "find /opt/kpi -perm /022 -not -type l") == "", "others may write"
    size = int(run("podman", "image", "inspect", "-f", "{{.Size}}", image))
    assert size < 1_000_000_000


def test_the_composed_system_syncs_takes_a_webhook_and_shows_a_page(system: System) -> None:
    composed = system.composed
    today = _today()

    # Dagster's page asks for the run, its daemon starts it, and the code server carries it out.
    said = composed.inside("page", "kpi", "backfill", "--from", today, "--to", today)

    assert "3" in said
    token = _token(composed)
    before = system.positive_replies(token)
    composed.inside("page", "kpi", "webhooks", "register")
    system.sandbox("mark-interested", {"workspace_id": system.workspace_id, "leads": 2})
    wait_until(
        lambda: system.positive_replies(token) == before + 2,
        "the two positive replies, through the proxy and the gateway",
        20,
    )

    with system.web() as web:
        assert web.get("/").status_code in (302, 303, 401)
        answer = web.post("/login", data={"name": "ann", "password": _PASSWORD})
        assert answer.status_code == 303, answer.text
        page = web.get("/")
        assert page.status_code == 200
        assert f"/clients/{system.client}" in page.text
        assert web.get("/dagster/server_info").status_code == 200, "logged in once for both"
        assert web.get("/webhooks/bison/another-secret").status_code in (404, 405)


def test_each_container_that_is_killed_starts_again_and_the_system_works_on(
    system: System,
) -> None:
    composed = system.composed
    token = _token(composed)
    names = [it for it in composed.services if composed.is_server(it)]
    assert len(names) == 7
    for service in names:
        first = composed.pid(service)
        composed.kill(service)
        wait_until(lambda: composed.pid(service) not in (0, first), f"{service}'s restart", 30)  # noqa: B023
        composed.await_healthy(service)
    composed.await_healthy(*names)

    before = system.positive_replies(token)
    system.sandbox("mark-interested", {"workspace_id": system.workspace_id, "leads": 1})
    wait_until(lambda: system.positive_replies(token) == before + 1, "one more", 60)
    today = _today()
    composed.inside("page", "kpi", "backfill", "--from", today, "--to", today)


def test_no_log_of_a_container_holds_a_secret(system: System) -> None:
    composed = system.composed
    run("podman", "stop", composed.name("gateway"))
    with system.web() as web:
        refused = web.post(f"/webhooks/bison/{_SECRET}?kpi_test=x", json={})
        assert refused.status_code == 502
        web.post("/login", data={"name": "ann", "password": "a wrong password"})
    wait_until(lambda: "/webhooks/bison/..." in composed.logs("proxy"), "the proxy's error", 10)
    run("podman", "start", composed.name("gateway"))
    composed.await_healthy("gateway")
    for service in [it for it in composed.services if composed.is_server(it)]:
        logs = composed.logs(service)
        assert not [it for it in system.secrets if it in logs], service


def _token(composed: Composed) -> str:
    label = f"test-{time.monotonic_ns()}"
    printed = composed.command("kpi", "users", "token", "ann", "--label", label)
    return next(it for it in printed.split() if it.startswith("kpi_"))


def test_the_pods_of_the_gateway_and_of_the_dashboard_work(system: System, tmp_path: Path) -> None:
    composed = system.composed
    file = tmp_path / "played.yaml"
    objects, secret = _for_podman(composed)
    file.write_text(yaml.safe_dump_all(objects))
    run("podman", "secret", "create", "kpi", "-", stdin=json.dumps(secret))
    run("podman", "play", "kube", "--network", composed.network, str(file))
    host = {"Host": "localhost"}
    gateway, dashboard = (_address_of(f"{PREFIX}kpi-{it}") for it in ("gateway", "dashboard"))

    _await_200(f"http://{gateway}:8080/readyz", host)
    _await_200(f"http://{dashboard}:3001/healthz", host)

    event = {"event": {"type": "test"}, "data": {}}
    url = f"http://{gateway}:8080/webhooks/bison/{_SECRET}?kpi_test=played"
    assert httpx.post(url, json=event).status_code == 200
    token = {"Authorization": f"Bearer {_token(composed)}"}
    clients = httpx.get(f"http://{dashboard}:3001/api/clients", headers={**host, **token})
    assert system.client in clients.text


def _for_podman(composed: Composed) -> tuple[list[Any], dict[str, str]]:
    """The ConfigMap and the Deployments of kpi.yaml, for this database; and their Secret."""
    env = dict(line.split("=", 1) for line in composed.env_file.read_text().splitlines())
    database = f"postgresql://kpi:madeUpPassword@{composed.addresses['postgres']}:5432/kpi"
    secret = {
        "KPI_DATABASE_URL": database,
        "KPI_DAGSTER_DATABASE_URL": f"{database}_dagster",
        **{name: env[name] for name in env if name not in ("KPI_TIMEZONE", "KPI_BISON_TIMEZONE")},
    }
    objects: list[Any] = []
    text = (PROJECT_ROOT / "deploy/kubernetes/kpi.yaml").read_text()
    for it in yaml.safe_load_all(text):
        if it["kind"] == "ConfigMap":
            it["data"] |= {name: env[name] for name in ("KPI_TIMEZONE", "KPI_BISON_TIMEZONE")}
        elif it["kind"] == "Deployment":
            it["metadata"]["name"] = f"{PREFIX}{it['metadata']['name']}"
            it["spec"]["replicas"] = 1
            [container] = it["spec"]["template"]["spec"]["containers"]
            container["image"] = composed.variables["IMAGE"]
            # podman would publish them on this machine.
            del container["ports"]
        else:
            # podman plays no Jobs, and has neither Services nor budgets.
            continue
        objects.append(it)
    return objects, {name: b64encode(it.encode()).decode() for name, it in secret.items()}


def _address_of(deployment: str) -> str:
    pods = json.loads(run("podman", "pod", "inspect", f"{deployment}-pod-0"))
    network = run(
        *("podman", "inspect", "-f", "{{json .NetworkSettings.Networks}}"),
        pods["InfraContainerID"],
    )
    return str(json.loads(network)[f"{PREFIX}net"]["IPAddress"])


def _await_200(url: str, headers: dict[str, str]) -> None:
    def answers() -> bool:
        try:
            return httpx.get(url, headers=headers, timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    wait_until(answers, url, 120, 0.5)
