"""The secret in the URL of each instance's webhooks."""

from collections.abc import Mapping

from pydantic import SecretStr

from kpi_pipeline.errors import KpiError
from kpi_pipeline.settings import Settings


def secrets_of_instances(settings: Settings) -> Mapping[str, SecretStr]:
    """The secrets by name of the instance, as the clients' CSV has it.

    Raises:
        KpiError: if no instance has one.
    """
    secrets = settings.webhook_secret
    if not secrets:
        raise KpiError(
            "No instance has a webhook secret, so no caller could be trusted: set "
            "KPI_WEBHOOK_SECRET_NAME for the instance NAME to the output of `kpi webhook-secret`."
        )
    names = {_as_variable(it.name): it.name for it in settings.bison_instances}
    return {names.get(name, name): secret for name, secret in secrets.items()}


def unknown_instances(settings: Settings) -> str | None:
    """A sentence that names the instances with a secret that are not configured, if any."""
    known = {_as_variable(it.name) for it in settings.bison_instances}
    unknown = sorted(set(settings.webhook_secret) - known)
    if not unknown:
        return None
    return (
        f"KPI_BISON_INSTANCES does not name {', '.join(unknown)}, which has a KPI_WEBHOOK_SECRET. "
        "Use the same name in both, or its events match no client."
    )


def without_secret(settings: Settings) -> list[str]:
    """The configured instances without a webhook secret."""
    return [
        it.name
        for it in settings.bison_instances
        if _as_variable(it.name) not in settings.webhook_secret
    ]


def secret_setting(instance: str) -> str:
    """The variable that holds the secret of the instance."""
    return f"KPI_WEBHOOK_SECRET_{_as_variable(instance).upper()}"


def _as_variable(name: str) -> str:
    """An instance's name as part of an environment variable, in lower case."""
    return name.replace("-", "_")
