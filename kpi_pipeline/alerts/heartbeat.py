"""Pings external dead-man's switches, by healthchecks.io's convention.

They raise the alarm when nothing here can, because nothing here runs. What each ping means, and
when it is sent: orchestration/automation/heartbeats.py.
"""

import logging
from enum import StrEnum

import httpx
from pydantic import SecretStr

from kpi_pipeline.alerts.delivery import silenced_loggers

_log = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 5.0


class Beat(StrEnum):
    """What a ping says, as a suffix of the URL; the URL alone means success."""

    START = "/start"
    SUCCESS = ""
    FAIL = "/fail"


def ping(
    url: SecretStr | None,
    beat: Beat,
    run_id: str | None = None,
    *,
    setting: str = "KPI_HEARTBEAT_URL",
    transport: httpx.BaseTransport | None = None,
) -> bool:
    """Ping `url`, if set; return whether the switch accepted that, or none is set.

    A failure is logged as a warning that names the `setting`. `run_id`, a UUID, tells the switch
    which start an end belongs to. The URL is a secret: it allows anybody to report success.
    """
    if url is None:
        return True
    try:
        with (
            silenced_loggers(),
            httpx.Client(transport=transport, timeout=_TIMEOUT_SECONDS) as client,
        ):
            address = httpx.URL(url.get_secret_value())
            address = address.copy_with(path=address.path.rstrip("/") + beat.value)
            if run_id is not None:
                address = address.copy_merge_params({"rid": run_id})
            client.get(address).raise_for_status()
            return True
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        # Its text holds the URL.
        _log.warning(
            "%s could not be pinged (%s). Check the URL, and that it can be reached from here.",
            setting,
            type(error).__name__,
        )
        return False
