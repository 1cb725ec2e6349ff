"""The URL of each instance's webhooks: the gateway's address, its path, and a secret."""

from collections.abc import Mapping

from pydantic import SecretStr

from kpi_pipeline.errors import KpiError
from kpi_pipeline.settings import Settings

# What follows the gateway's address; the secret of an instance is the last part.
WEBHOOK_PATH = "/webhooks/bison"


def webhook_url(settings: Settings, instance: str) -> SecretStr:
    """The public URL of the instance's webhooks. It is a secret: a sender needs nothing else.

    Raises:
        KpiError: naming the setting that is missing.
    """
    if settings.gateway_url is None:
        raise KpiError(
            "KPI_GATEWAY_URL is not set: set it to the public address of the gateway, as "
            "https://HOST, at which Email Bison reaches it."
        )
    secret = settings.webhook_secret.get(_as_variable(instance))
    if secret is None:
        raise KpiError(
            f"The instance {instance} has no webhook secret: set {secret_setting(instance)} to the "
            "output of `kpi webhook-secret`, and restart the gateway."
        )
    return SecretStr(f"{settings.gateway_url}{WEBHOOK_PATH}/{secret.get_secret_value()}")


def shown_url(settings: Settings) -> str:
    """The URL of webhooks, with "…" in place of the secret."""
    return f"{settings.gateway_url}{WEBHOOK_PATH}/…"


def has_webhooks(settings: Settings, instance: str) -> bool:
    """Whether the settings have the public URL of the instance's webhooks."""
    return settings.gateway_url is not None and _as_variable(instance) in settings.webhook_secret


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
