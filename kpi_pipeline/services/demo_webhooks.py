"""The demo's webhooks: the invented agency tells the gateway of its leads that turn interested."""

import csv
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat

import httpx

from kpi_pipeline.services.playground import Playground

# As hostile as the real ones: late, out of order, in either case, now and then twice.
_MANNERS = {"event_casing": "mixed", "delivery_seconds": 0.5, "delivery_repeats": 0.1}
_EVENTS = ["lead_interested"]
_AT_ONCE = 8
_PATIENCE_SECONDS = 60


def register_webhooks(play: Playground) -> None:
    """Have the sandbox send its events to the gateway.

    Each workspace with a key of its own has a webhook, registered by Email Bison's own call, and
    the whole instance has a parent hook: so most events arrive twice, as they do in earnest.
    """
    (secret,) = play.app.settings.webhook_secret.values()
    url = f"{play.gateway}/webhooks/bison/{secret.get_secret_value()}"
    with httpx.Client(base_url=play.sandbox, timeout=_PATIENCE_SECONDS) as sandbox:
        sandbox.patch("/sandbox/variants", json=_MANNERS).raise_for_status()
        sandbox.post("/sandbox/parent-hook", json={"url": url}).raise_for_status()
        table = sandbox.get("/sandbox/clients.csv").raise_for_status().text
        keys = [row["api_key"] for row in csv.DictReader(table.splitlines()) if row["api_key"]]
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            list(threads.map(_register, repeat(sandbox), keys, repeat(url)))


def _register(sandbox: httpx.Client, key: str, url: str) -> None:
    sandbox.post(
        "/api/webhook-url",
        headers={"Authorization": f"Bearer {key}"},
        json={"name": "KPI pipeline", "url": url, "events": _EVENTS},
    ).raise_for_status()
