"""The calls that change the webhooks of a workspace, or send a test event to an address."""

from collections.abc import Collection, Mapping

from pydantic import SecretStr

from kpi_pipeline.bison.calls import Call
from kpi_pipeline.bison.reader import WorkspaceReader

_PATH = "/api/webhook-url"


class WebhookCalls:
    """Changes the webhooks of the workspace that `reader` reads.

    Every method raises BisonError if its call fails. Nothing is read from an answer: the list of
    webhooks shows what was changed. No error shows the address of a webhook, as that is all that a
    sender of events needs.
    """

    def __init__(self, reader: WorkspaceReader) -> None:
        self._session = reader.session

    async def create(self, name: str, url: SecretStr, events: Collection[str]) -> None:
        """Create a webhook. A call without an answer is not retried: it may have created one."""
        await self._send("POST", _PATH, url, _webhook(name, url, events), repeatable=False)

    async def replace(
        self, hook_id: int, name: str, url: SecretStr, events: Collection[str]
    ) -> None:
        """Replace name, address and all types of event of a webhook."""
        await self._send("PUT", f"{_PATH}/{hook_id}", url, _webhook(name, url, events))

    async def delete(self, hook_id: int, url: SecretStr) -> None:
        """Delete a webhook, whose address is `url`."""
        await self._send("DELETE", f"{_PATH}/{hook_id}", url)

    async def send_test(self, event_type: str, url: SecretStr) -> None:
        """Have Email Bison send a test event of that type to the address."""
        body = {"event_type": event_type, "url": url.get_secret_value()}
        await self._send("POST", "/api/webhook-events/test-event", url, body, repeatable=False)

    async def _send(
        self,
        method: str,
        path: str,
        url: SecretStr,
        body: Mapping[str, object] | None = None,
        *,
        repeatable: bool = True,
    ) -> None:
        # An answer may quote the whole address, or its secret part alone.
        secret = SecretStr(url.get_secret_value().partition("?")[0].rpartition("/")[2])
        call = Call(method, path, json=body, repeatable=repeatable, secrets=(url, secret))
        await self._session.call(call, lambda _: None)


def _webhook(name: str, url: SecretStr, events: Collection[str]) -> dict[str, object]:
    return {"name": name, "url": url.get_secret_value(), "events": list(events)}
