"""Delivers a message by apprise. An address is a secret: nothing here prints, logs or raises it."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from apprise import Apprise, NotifyBase, NotifyFormat, NotifyType
from pydantic import SecretStr

from kpi_pipeline.alerts.message import Message

# httpx logs each address, urllib3 and httpcore do when they tell all, apprise now and then.
_TALKATIVE = ("apprise", "urllib3", "httpx", "httpcore")


@contextmanager
def in_silence() -> Iterator[None]:
    """Let none of them log anything until the block ends."""
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    levels = [it.level for it in loggers]
    for it in loggers:
        it.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for it, level in zip(loggers, levels, strict=True):
            it.setLevel(level)


_log = logging.getLogger(__name__)

# Of these a server's name stands where others hold a token.
_WITH_A_HOST = {"json", "jsons", "xml", "xmls", "form", "forms", "mailto", "mailtos"}


@dataclass(frozen=True)
class Receiver:
    """One entry of KPI_ALERT_URLS; `name` says no more of it than service and server."""

    name: str
    service: NotifyBase | None

    def take(self, message: Message) -> bool:
        """Deliver the message, or say that this failed; each call has its own time-out."""
        if self.service is None:
            return False
        kind = {True: NotifyType.FAILURE, False: NotifyType.SUCCESS, None: NotifyType.INFO}
        try:
            with in_silence():
                return bool(
                    self.service.notify(
                        body=message.body,
                        title=message.title,
                        notify_type=kind[message.bad],
                        body_format=NotifyFormat.TEXT,
                    )
                )
        except Exception as error:  # noqa: BLE001 - some hundred services, each with its own
            # Its text may hold the address.
            _log.warning("%s took no alert: %s", self.name, type(error).__name__)
            return False


def receivers_of(urls: Sequence[SecretStr]) -> list[Receiver]:
    """The receivers, each with a name of its own. One whose address is none takes nothing."""
    receivers: list[Receiver] = []
    for place, url in enumerate(urls, start=1):
        with in_silence():
            service = Apprise.instantiate(url.get_secret_value())
        found = service if isinstance(service, NotifyBase) else None
        name = _name(found) if found else f"entry {place}"
        same = sum(it.name == name or it.name.startswith(f"{name} #") for it in receivers)
        receivers.append(Receiver(f"{name} #{same + 1}" if same else name, found))
    return receivers


def _name(service: NotifyBase) -> str:
    schema = str(getattr(service, "schema", ""))
    if schema in _WITH_A_HOST and service.host:
        return f"{schema}://{service.host}"
    return str(service.service_name)


def deliver(
    receivers: Sequence[Receiver],
    message: Message,
    pauses: Sequence[float] = (),
    sleep: Callable[[float], None] = time.sleep,
) -> list[str]:
    """Deliver a message to each; those that fail are tried again after each pause, in seconds.

    Returns the names of those that took none.
    """
    left = [it for it in receivers if not it.take(message)]
    for pause in pauses:
        if not left:
            break
        sleep(pause)
        left = [it for it in left if not it.take(message)]
    return [it.name for it in left]
