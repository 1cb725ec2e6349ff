"""compose.yaml, the units of systemd and the objects of Kubernetes, as files."""

import os
import re
import shutil
import subprocess
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from typer.main import get_command

from kpi_pipeline.cli.main import commands
from kpi_pipeline.settings import Settings
from kpi_pipeline_tests import PROJECT_ROOT
from kpi_pipeline_tests.containers.compose import compose

KUBERNETES = PROJECT_ROOT / "deploy/kubernetes"
UNITS = PROJECT_ROOT / "deploy/systemd"
# All fields of ours are in every version that is maintained.
_KUBERNETES_VERSION = "1.34"
_VARIABLES = {"POSTGRES_PASSWORD": "x", "PUBLIC_HOST": "kpi.agency.example"}


@cache
def services() -> dict[str, Any]:
    found: dict[str, Any] = compose(_VARIABLES)["services"]
    return found


@cache
def objects(name: str) -> list[Any]:
    return list(yaml.safe_load_all((KUBERNETES / name).read_text()))


@cache
def chart_values() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((KUBERNETES / "values.yaml").read_text())
    return found


def our_containers() -> list[dict[str, Any]]:
    """The containers that are described in kpi.yaml, and in the values of the chart."""
    return [
        container
        for it in objects("kpi.yaml")
        if it["kind"] in ("Job", "Deployment")
        for container in it["spec"]["template"]["spec"]["containers"]
    ]


def chart_parts() -> list[dict[str, Any]]:
    values = chart_values()
    code = values["dagster-user-deployments"]["deployments"]
    return [*code, values["dagsterDaemon"], values["dagsterWebserver"]]


def exists(words: list[str]) -> bool:
    """Whether `kpi` has this command with these options."""
    command: Any = get_command(commands)
    assert words[0] == "kpi"
    for word in words[1:]:
        if word.startswith("--"):
            return word == "--help" or any(word in it.opts for it in command.params)
        if not hasattr(command, "commands"):
            # An argument.
            continue
        if word not in command.commands:
            return False
        command = command.commands[word]
    return True


def test_every_command_in_these_files_exists() -> None:
    composed = [it["command"] for it in services().values() if "command" in it]
    pods = [it["args"] for it in our_containers()]
    units = [
        line.replace("/opt/kpi/bin/kpi", "kpi").replace("%i", "gateway").split()
        for file in UNITS.glob("*.service")
        for line in re.findall(r"^ExecStart\w*=(\S*/kpi .*)$", file.read_text(), re.MULTILINE)
    ]
    assert len(units) == 4
    for words in [*composed, *pods, *units]:
        assert exists(words), words


def test_a_variable_without_a_value_is_named_before_anything_starts() -> None:
    for name in _VARIABLES:
        left = {key: value for key, value in _VARIABLES.items() if key != name}
        with pytest.raises(KeyError, match=name):
            compose(left)


def test_each_server_has_a_restart_policy_a_health_check_and_limited_logs() -> None:
    servers = {name: it for name, it in services().items() if it["restart"] != "no"}
    assert len(servers) == 7
    for name, it in servers.items():
        assert it["restart"] == "unless-stopped", name
        assert it["healthcheck"]["test"][0] == "CMD", name
        assert it["logging"]["options"] == {"max-size": "10m", "max-file": "5"}, name
        assert re.search(r":[0-9]", it["image"]), f"{name} has no fixed version"
    # The proxy alone is reached from outside.
    assert [name for name, it in services().items() if "ports" in it] == ["proxy"]


def test_all_settings_in_these_files_exist() -> None:
    known = {f"KPI_{name.upper()}" for name in Settings.model_fields}
    text = (PROJECT_ROOT / "compose.yaml").read_text()
    text += "".join(it.read_text() for it in (*KUBERNETES.iterdir(), *UNITS.iterdir()))
    used = set(re.findall(r"\bKPI_[A-Z_]+\b", text))
    assert len(used) > 10
    assert used - {"KPI_ENV_FILE"} <= known


def test_images_have_the_version_of_the_package() -> None:
    now = version("kpi-pipeline")
    images = [services()["gateway"]["image"], *(it["image"] for it in our_containers())]
    assert {it.rpartition(":")[2] for it in images} == {now}
    assert {str(it["image"]["tag"]) for it in chart_parts()} == {now}


def test_the_objects_of_kubernetes_are_valid() -> None:
    for it in [*objects("kpi.yaml"), *objects("dagster-instance.yaml")]:
        kubernetes_validate.validate(it, _KUBERNETES_VERSION, strict=True)


def test_no_pod_is_root_writes_into_its_image_or_has_a_secret_in_its_description() -> None:
    pods = [it["spec"]["template"]["spec"] for it in objects("kpi.yaml") if "template" in str(it)]
    assert len(pods) == 3
    for pod in [*(it["securityContext"] for it in pods), *_of_chart("podSecurityContext")]:
        assert pod["runAsNonRoot"] is True
        assert pod["runAsUser"] == 10001
    for container in [
        *(it["securityContext"] for it in our_containers()),
        *_of_chart("securityContext"),
    ]:
        assert container["readOnlyRootFilesystem"] is True
        assert container["allowPrivilegeEscalation"] is False
        assert container["capabilities"] == {"drop": ["ALL"]}
    settings = objects("kpi.yaml")[0]["data"]
    secret = re.compile("DATABASE_URL|SECRET|KEY|PASSWORD|INSTANCES|ALERT_URLS|HEARTBEAT")
    assert not [name for name in settings if secret.search(name)]
    for container in our_containers():
        assert {"secretRef": {"name": "kpi"}} in container["envFrom"]
    assert all(secrets == [{"name": "kpi"}] for secrets in _of_chart("envSecrets"))


def _of_chart(key: str) -> list[Any]:
    return [it[key] for it in chart_parts()]


def test_dagster_is_configured_in_a_cluster_as_everywhere_but_for_its_runs_and_their_logs() -> None:
    here = yaml.safe_load((PROJECT_ROOT / "dagster.yaml").read_text())
    there = yaml.safe_load(objects("dagster-instance.yaml")[0]["data"]["dagster.yaml"])
    added = {"run_launcher", "compute_logs"}
    assert {name: value for name, value in there.items() if name not in added} == here
    assert there.keys() - here.keys() == added


def test_a_gateway_stays_while_nodes_are_drained() -> None:
    budgets = [it for it in objects("kpi.yaml") if it["kind"] == "PodDisruptionBudget"]
    assert {it["metadata"]["name"] for it in budgets} == {"kpi-gateway", "kpi-dashboard"}
    gateway = next(
        it for it in objects("kpi.yaml") if it["kind"] == "Deployment" and "gateway" in str(it)
    )
    assert gateway["spec"]["replicas"] > 1


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_the_units_of_systemd_are_valid_and_confined(tmp_path: Path) -> None:
    program = str(Path(sys.executable).parent / "kpi")
    for file in UNITS.iterdir():
        name = file.name.replace("@.", "@gateway.")
        (tmp_path / name).write_text(file.read_text().replace("/opt/kpi/bin/kpi", program))
    units = sorted(map(str, tmp_path.iterdir()))
    assert len(units) == 4

    verified = _systemd_analyze("verify", "--man=no", *units)

    assert verified.returncode == 0, verified.stderr
    assert verified.stderr == ""
    for unit in [it for it in units if it.endswith(".service")]:
        # An exposure of 2.0 on a scale of 10.
        judged = _systemd_analyze("security", "--offline=yes", "--threshold=20", unit)
        assert judged.returncode == 0, judged.stdout[-2000:]


def _systemd_analyze(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["systemd-analyze", *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "SYSTEMD_COLORS": "0"},
    )
