"""Tells a watch from outside that the work is being done: healthchecks.io's convention.

It is for the case in which nothing here could raise an alert, because nothing here runs.
"""

import logging
from enum import StrEnum

import httpx
from pydantic import SecretStr

from kpi_pipeline.alerts.delivery import in_silence

_log = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 5.0


class Beat(StrEnum):
    """What is told, as the last part of the address; a success is the address alone."""

    START = "/start"
    SUCCESS = ""
    FAIL = "/fail"


def ping(
    url: SecretStr | None,
    beat: Beat,
    run_id: str | None = None,
    transport: httpx.BaseTransport | None = None,
) -> None:
    """Call the watch, if there is one; when that fails, a warning is all that comes of it.

    With `run_id`, runs side by side are told apart. The address is a secret: whoever knows it can
    tell the watch that all is well.
    """
    if url is None:
        return
    try:
        with in_silence(), httpx.Client(transport=transport, timeout=_TIMEOUT_SECONDS) as client:
            address = httpx.URL(url.get_secret_value())
            address = address.copy_with(path=address.path.rstrip("/") + beat.value)
            if run_id is not None:
                address = address.copy_merge_params({"rid": run_id})
            client.get(address).raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        # Its text holds the address.
        _log.warning(
            "KPI_HEARTBEAT_URL could not be called (%s). See that the address is right and the "
            "watch can be reached.",
            type(error).__name__,
        )
