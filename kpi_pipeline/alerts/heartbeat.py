"""Pings an external dead-man's switch around scheduled runs, by healthchecks.io's convention.

It raises the alarm when nothing here can, because nothing here runs.
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
    transport: httpx.BaseTransport | None = None,
) -> None:
    """Ping `url`, if set. A failure is logged as a warning and does not raise.

    `run_id` tells concurrent runs apart. The URL is a secret: it allows anybody to report success.
    """
    if url is None:
        return
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
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        # Its text holds the URL.
        _log.warning(
            "KPI_HEARTBEAT_URL could not be pinged (%s). Check the URL, and that it can be reached "
            "from here.",
            type(error).__name__,
        )
