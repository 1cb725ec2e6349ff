"""Delivers messages through apprise. A URL is a secret: nothing here prints, logs or raises it."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from apprise import Apprise, NotifyBase, NotifyFormat, NotifyType
from pydantic import SecretStr

from kpi_pipeline.alerts.message import Message
from kpi_pipeline.domain.outside_names import for_chat

# Loggers that write URLs: httpx always, urllib3 and httpcore at DEBUG, apprise sometimes.
_LOGGERS_OF_URLS = ("apprise", "urllib3", "httpx", "httpcore")


@contextmanager
def silenced_loggers() -> Iterator[None]:
    """Log nothing of these libraries inside the block."""
    loggers = [logging.getLogger(name) for name in _LOGGERS_OF_URLS]
    levels = [it.level for it in loggers]
    for it in loggers:
        it.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for it, level in zip(loggers, levels, strict=True):
            it.setLevel(level)


_log = logging.getLogger(__name__)

# In the URLs of these the host is a server's name; in others it is a token.
_SCHEMAS_WITH_HOST = {"json", "jsons", "xml", "xmls", "form", "forms", "mailto", "mailtos"}


@dataclass(frozen=True)
class Receiver:
    """One entry of KPI_ALERT_URLS; `name` reveals its service and server only."""

    name: str
    service: NotifyBase | None

    def send(self, message: Message) -> bool:
        """Deliver the message; return whether that succeeded. apprise sets the time-outs.

        Names from outside are shown as text: they call nobody, and hide no link.
        """
        if self.service is None:
            return False
        try:
            with silenced_loggers():
                return bool(
                    self.service.notify(
                        body=for_chat(message.body),
                        title=for_chat(message.title),
                        notify_type=NotifyType(message.type.value),
                        body_format=NotifyFormat.TEXT,
                    )
                )
        except Exception as error:  # noqa: BLE001 - each of a hundred services raises its own
            # Its text may hold the URL.
            _log.warning("An alert to %s failed: %s", self.name, type(error).__name__)
            return False


def receivers_of(urls: Sequence[SecretStr]) -> list[Receiver]:
    """The receivers, with distinct names. One without a URL that apprise knows fails always."""
    receivers: list[Receiver] = []
    for place, url in enumerate(urls, start=1):
        with silenced_loggers():
            service = Apprise.instantiate(url.get_secret_value())
        found = service if isinstance(service, NotifyBase) else None
        name = _name(found) if found else f"entry {place}"
        same = sum(it.name == name or it.name.startswith(f"{name} #") for it in receivers)
        receivers.append(Receiver(f"{name} #{same + 1}" if same else name, found))
    return receivers


def _name(service: NotifyBase) -> str:
    schema = str(getattr(service, "schema", ""))
    if schema in _SCHEMAS_WITH_HOST and service.host:
        return f"{schema}://{service.host}"
    return str(service.service_name)


def deliver(
    receivers: Sequence[Receiver],
    message: Message,
    pauses: Sequence[float] = (),
    sleep: Callable[[float], None] = time.sleep,
) -> list[str]:
    """Deliver a message to each receiver, and retry failures after each pause, in seconds.

    Returns the names of the receivers that failed in the end.
    """
    left = [it for it in receivers if not it.send(message)]
    for pause in pauses:
        if not left:
            break
        sleep(pause)
        left = [it for it in left if not it.send(message)]
    return [it.name for it in left]
