"""Faults of Email Bison, of the clients, and of the ways in for events."""

from collections.abc import Iterator

from kpi_pipeline.instances import format_instances
from kpi_pipeline.orchestration.partitions import WORKSPACE
from kpi_pipeline.sync import webhook_probe
from kpi_pipeline_tests.cli.running import closed_port, days_ago
from kpi_pipeline_tests.conftest import instance_of
from kpi_pipeline_tests.services.doctor.faults.fault import WARNING, Patch, fault, setting
from kpi_pipeline_tests.services.doctor.installation import Well

# Email Bison and the clients.


def _instances(well: Well, patch: Patch, url: str = "", key: str = "") -> None:
    found = instance_of(well.bison)
    instances = format_instances([found])
    if url:
        instances = instances.replace(found.url, url)
    if key:
        instances = instances.replace(well.bison.master_key, key)
    patch.setenv("KPI_BISON_INSTANCES", instances)


@fault("bison", "Check that Email Bison is up and its address")
def an_email_bison_that_is_away(well: Well, patch: Patch) -> Iterator[None]:
    _instances(well, patch, url=f"http://127.0.0.1:{closed_port()}")
    yield


@fault("bison", "Give the instance a valid super-admin key")
def a_master_key_that_is_rejected(well: Well, patch: Patch) -> Iterator[None]:
    _instances(well, patch, key=f"7|{'Made0Up0' * 6}")
    yield


setting("bison", "No Email Bison is configured", "KPI_BISON_INSTANCES", "")


@fault("clients", "There is no active client")
def no_client(well: Well, patch: Patch) -> Iterator[None]:
    well.sql("UPDATE clients SET active = false")
    yield
    well.sql("UPDATE clients SET active = true")


@fault("clients", "emea, the instance of ")
def a_client_of_an_instance_that_is_not_configured(well: Well, patch: Patch) -> Iterator[None]:
    update = "UPDATE clients SET instance = :to WHERE workspace = :it"
    well.sql(update, to="emea", it=well.client)
    yield
    well.sql(update, to="main", it=well.client)


@fault("workspaces", "Email Bison no longer has the workspace of ")
def a_workspace_that_is_gone(well: Well, patch: Patch) -> Iterator[None]:
    well.agency.delete(well.client)
    yield
    well.agency.control("POST", f"workspaces/{well.agency.ids[well.client]}/restore")


@fault("workspaces", "1 workspace of Email Bison without a client: New Agency", WARNING)
def a_workspace_without_a_client(well: Well, patch: Patch) -> Iterator[None]:
    made = well.agency.control("POST", "workspaces", name="New Agency").json()
    yield
    well.agency.control("DELETE", f"workspaces/{made['id']}")


@fault("keys", "`kpi keys rotate ")
def a_key_that_was_revoked(well: Well, patch: Patch) -> Iterator[None]:
    well.agency.revoke(well.client)
    yield
    well.agency.restore(well.client)


@fault("keys", "the key belongs to workspace")
def a_key_of_another_workspace(well: Well, patch: Patch) -> Iterator[None]:
    own, *others = well.agency.ids.values()
    number = well.agency.ids[well.client]
    other = next(it for it in (own, *others) if it != number)
    well.agency.control("POST", "keys/move", workspace_id=number, to=other)
    yield
    well.agency.control("POST", "keys/move", workspace_id=number, to=number)


@fault("targets", "1 client without a target for ", WARNING)
def a_client_without_a_target(well: Well, patch: Patch) -> Iterator[None]:
    move = "UPDATE client_targets SET holds_from = holds_from {} '30 years' WHERE workspace = :it"
    well.sql(move.format("+ interval"), it=well.client)
    yield
    well.sql(move.format("- interval"), it=well.client)


@fault("partitions", "Dagster has no partition of ")
def a_client_without_a_partition(well: Well, patch: Patch) -> Iterator[None]:
    well.dagster.delete_dynamic_partition(WORKSPACE, well.client)
    yield
    well.dagster.add_dynamic_partitions(WORKSPACE, [well.client])


@fault("partitions", "Dagster has partitions of gone, which are no active clients", WARNING)
def a_partition_without_a_client(well: Well, patch: Patch) -> Iterator[None]:
    well.dagster.add_dynamic_partitions(WORKSPACE, ["gone"])
    yield
    well.dagster.delete_dynamic_partition(WORKSPACE, "gone")


@fault("partitions", "Dagster's grid shows 2 of them: run `kpi dagster rebuild`", WARNING)
def a_row_that_the_grid_lacks(well: Well, patch: Patch) -> Iterator[None]:
    rename = "UPDATE event_logs SET partition = :to WHERE partition = :it"
    lacking = {"it": f"{days_ago(1)}|{well.client}", "to": f"{days_ago(1)}|none"}
    well.dagster_sql(rename, **lacking)
    yield
    well.dagster_sql(rename, it=lacking["to"], to=lacking["it"])


# Events.


def _hooks(well: Well) -> list[dict[str, object]]:
    key = well.agency.key(well.client)
    return list(well.bison.data("/api/webhook-url", key=key))


def _register(well: Well, url: str, *events: str) -> int:
    """Register a webhook of the client; its id."""
    body = {"name": "kpi", "url": url, "events": events}
    key = well.agency.key(well.client)
    made = well.bison.call("POST", "/api/webhook-url", key=key, json=body)
    assert made.status_code == 201, made.text
    return int(made.json()["data"]["id"])


def _delete(well: Well, number: object) -> None:
    key = well.agency.key(well.client)
    gone = well.bison.call("DELETE", f"/api/webhook-url/{number}", key=key)
    assert gone.is_success, gone.text


@fault("webhooks", "Webhooks are missing in 1 workspace: ")
def a_webhook_that_was_deleted(well: Well, patch: Patch) -> Iterator[None]:
    (hook,) = _hooks(well)
    _delete(well, hook["id"])
    yield
    # A fix may have registered it.
    if not _hooks(well):
        _register(well, str(hook["url"]), *hook["events"])  # type: ignore[misc]


@fault("webhooks", "Webhooks are dead in 1 workspace: ", WARNING)
def a_webhook_with_an_old_secret(well: Well, patch: Patch) -> Iterator[None]:
    url = f"{well.environment['KPI_GATEWAY_URL']}/webhooks/bison/{'old' * 10}"
    number = _register(well, url, "lead_interested")
    yield
    _delete(well, number)


@fault("endpoint", "what answers at")
def a_proxy_that_does_not_forward(well: Well, patch: Patch) -> Iterator[None]:
    yield from _shut(well, patch, 404)


@fault("endpoint", "answers with a redirect (301)")
def a_proxy_that_redirects(well: Well, patch: Patch) -> Iterator[None]:
    yield from _shut(well, patch, 301)


def _shut(well: Well, patch: Patch, status: int) -> Iterator[None]:
    patch.setattr(webhook_probe, "WAIT_SECONDS", 0.0)
    well.door.shut = status
    yield
    well.door.shut = None


@fault("feed", "GET /api/events")
def a_feed_that_fails(well: Well, patch: Patch) -> Iterator[None]:
    number = well.bison.fault("status", status=403, path="/api/events")
    yield
    well.agency.control("DELETE", f"faults/{number}")


@fault("feed", "The last reading of the feed of ", WARNING)
def a_feed_that_was_not_read_to_its_end(well: Well, patch: Patch) -> Iterator[None]:
    well.sql(
        "INSERT INTO event_feed (workspace, event_type, tried_at, problem) "
        "VALUES (:it, 'lead_interested', now(), 'its feed has more than 600 rows')",
        it=well.client,
    )
    yield
    well.sql("DELETE FROM event_feed")
