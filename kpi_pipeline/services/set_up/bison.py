"""Tests the answers about an Email Bison instance: its address, and its super-admin key."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from kpi_pipeline.bison import (
    BisonClient,
    BisonError,
    BisonInstance,
    ClientOptions,
    RejectedKey,
    Workspace,
)
from kpi_pipeline.bison.address import address_problem
from kpi_pipeline.domain.formatting import as_sentence
from kpi_pipeline.errors import KpiError
from kpi_pipeline.instances import (
    API_KEY_FORM,
    InstanceSetting,
    format_instances,
    is_api_key,
    parse_instances,
    url_problem,
)
from kpi_pipeline.settings.web import is_loopback

_OPTIONS = ClientOptions(timeout_seconds=30.0, attempts=2)


class _Unlimited:
    """Some calls one after the other, before there is a database that counts those of all."""

    @asynccontextmanager
    async def slot(self, *, ahead: bool = False) -> AsyncIterator[None]:  # noqa: ARG002 - as in Pacing
        """Send at once."""
        yield

    async def push_back(self, seconds: float) -> None:
        """Wait as the instance asks."""
        await asyncio.sleep(seconds)

    @asynccontextmanager
    async def held(self, instance: str) -> AsyncIterator[None]:  # noqa: ARG002 - as in MasterKeyLock
        """No lock: the list of workspaces is the same wherever the key acts."""
        yield


def valid_name(text: str) -> str:
    """A name that an instance can have.

    Raises:
        KpiError: if it can't.
    """
    name = text.strip()
    try:
        parse_instances(f"{name} https://bison.example")
    except ValueError:
        raise KpiError(
            "That is no name for an instance: write 1 to 31 lower-case letters, digits, - and _, "
            "the first of them a letter or a digit."
        ) from None
    return name


def reached_address(url: str) -> str:
    """The address, without a slash at its end, at which Email Bison answers.

    Raises:
        KpiError: saying what is wrong with it.
    """
    address = url.strip().rstrip("/")
    if problem := url_problem(address):
        raise KpiError(as_sentence(problem))
    if problem := address_problem(address):
        raise KpiError(problem)
    return address


def address_warning(url: str) -> str | None:
    """A sentence about an address at which keys are sent as plain text, if it is one."""
    parts = urlsplit(url)
    if parts.scheme == "https" or is_loopback(parts.hostname or ""):
        return None
    return f"{url} has no TLS: all API keys are sent to it as plain text. Use https:// if it can."


def found_workspaces(instance: InstanceSetting) -> Sequence[Workspace]:
    """All workspaces of the instance, by name. Its super-admin key is tested so.

    Raises:
        KpiError: if the key has not the form of one, is rejected, or the list can't be read.
    """
    key = instance.master_key
    if key is None or not is_api_key(key.get_secret_value()):
        raise KpiError(
            f"That is not an API key: it must be of the form {API_KEY_FORM}. Copy it again from "
            "Email Bison."
        )
    try:
        found = asyncio.run(_listed(BisonInstance(instance.name, instance.url, key)))
    except RejectedKey as error:
        raise KpiError(
            f"Email Bison rejects the key ({error.what}). Copy a valid super-admin key from it."
        ) from None
    except BisonError as error:
        raise KpiError(f"The workspaces could not be listed: {error}") from None
    return sorted(found, key=lambda it: (it.name.casefold(), it.id))


def with_instance(
    configured: Sequence[InstanceSetting], changed: InstanceSetting
) -> tuple[InstanceSetting, ...]:
    """All instances, with this one added or in place of that of its name.

    Raises:
        KpiError: if another one has its address.
    """
    by_name = {it.name: it for it in configured} | {changed.name: changed}
    try:
        return parse_instances(format_instances(by_name.values()))
    except ValueError as error:
        raise KpiError(f"{error}.") from None


async def _listed(instance: BisonInstance) -> list[Workspace]:
    unlimited = _Unlimited()
    async with BisonClient(
        instance, pacing=unlimited, master_lock=unlimited, options=_OPTIONS
    ) as bison:
        return await bison.list_workspaces()
