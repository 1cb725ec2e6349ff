"""The Job of a run, as Dagster's launcher makes it from the configuration in deploy/kubernetes/."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import kubernetes_validate
import pytest
import yaml
from dagster import DagsterInstance, DagsterRun
from dagster._core.code_pointer import CodePointer
from dagster._core.launcher import LaunchRunContext
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster_k8s import K8sRunLauncher
from dagster_k8s.client import DagsterKubernetesClient
from kubernetes import client
from sqlalchemy import URL

from kpi_pipeline_tests import PROJECT_ROOT
from kpi_pipeline_tests.cli.running import address

pytestmark = pytest.mark.runs

_PYTHON = "/opt/kpi/bin/python"
_IMAGE = "registry.agency.example/kpi-pipeline:0.1.0"


@pytest.fixture
def instance(
    database: URL, dagster_database: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> DagsterInstance:
    """Dagster, configured as in a pod; there is no cluster to ask."""
    described = yaml.safe_load(
        (PROJECT_ROOT / "deploy/kubernetes/dagster-instance.yaml").read_text()
    )
    (tmp_path / "dagster.yaml").write_text(described["data"]["dagster.yaml"])
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv("KPI_DATABASE_URL", address(database))
    monkeypatch.setenv("POD_NAMESPACE", "agency")
    monkeypatch.setattr("dagster_k8s.launcher.load_kubernetes_config", lambda **_: None)
    return DagsterInstance.get()


def test_each_run_is_a_valid_job_with_settings_by_reference(
    instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[str, Any]] = []
    monkeypatch.setattr(
        DagsterKubernetesClient,
        "create_namespaced_job_with_retries",
        lambda _self, body, namespace: made.append((namespace, body)),
    )
    pointer = CodePointer.from_module("kpi_pipeline.definitions", "defs", None)
    code = RepositoryPythonOrigin(_PYTHON, pointer, container_image=_IMAGE)
    with instance:
        assert isinstance(instance.run_launcher, K8sRunLauncher)
        origin = JobPythonOrigin("__ASSET_JOB", code)
        run = instance.add_run(DagsterRun("__ASSET_JOB", str(uuid4()), job_code_origin=origin))
        instance.run_launcher.launch_run(LaunchRunContext(dagster_run=run, workspace=None))

    [(namespace, body)] = made
    job = client.ApiClient().sanitize_for_serialization(body)
    kubernetes_validate.validate(job, "1.34", strict=True)
    assert namespace == "agency"
    pod = job["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert container["image"] == _IMAGE
    assert container["args"][:5] == [_PYTHON, "-m", "dagster", "api", "execute_run"]
    assert {"secretRef": {"name": "kpi"}} in container["envFrom"]
    assert {"configMapRef": {"name": "kpi-settings"}} in container["envFrom"]
    assert "made-up-PaSsWoRd" not in str(job), "the address of the database is in the Secret alone"
    mounts = {it["mountPath"] for it in container["volumeMounts"]}
    assert mounts == {"/opt/kpi/dagster/dagster.yaml", "/var/lib/kpi", "/tmp"}
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod["automountServiceAccountToken"] is False
    assert job["spec"]["backoffLimit"] == 0, "Dagster starts a run again, and nothing else does"
