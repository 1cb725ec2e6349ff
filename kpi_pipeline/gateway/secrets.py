"""Which secret stands in the address of which instance's webhooks."""

from collections.abc import Mapping

from pydantic import SecretStr

from kpi_pipeline.errors import KpiError
from kpi_pipeline.settings import Settings


def secrets_of_instances(settings: Settings) -> Mapping[str, SecretStr]:
    """The secrets by the instances' names, as the clients' CSV holds them.

    Raises:
        KpiError: if there is none.
    """
    secrets = settings.webhook_secret
    if not secrets:
        raise KpiError(
            "No webhook has a secret yet, so none could be told from a stranger's call: set "
            "KPI_WEBHOOK_SECRET_NAME for the instance NAME to what `kpi webhook-secret` prints."
        )
    names = {_as_variable(it.name): it.name for it in settings.bison_instances}
    return {names.get(name, name): secret for name, secret in secrets.items()}


def unknown_instances(settings: Settings) -> str | None:
    """A sentence that names each instance which has a secret and is not configured, if any."""
    known = {_as_variable(it.name) for it in settings.bison_instances}
    unknown = sorted(set(settings.webhook_secret) - known)
    if not unknown:
        return None
    return (
        "KPI_BISON_INSTANCES does not name "
        f"{', '.join(unknown)}, for which there is a KPI_WEBHOOK_SECRET. Name the instance alike "
        "in both, or its events match no client."
    )


def without_secret(settings: Settings) -> list[str]:
    """The configured instances whose webhooks have no secret."""
    return [
        it.name
        for it in settings.bison_instances
        if _as_variable(it.name) not in settings.webhook_secret
    ]


def secret_setting(instance: str) -> str:
    """The variable that holds the secret of the instance."""
    return f"KPI_WEBHOOK_SECRET_{_as_variable(instance).upper()}"


def _as_variable(name: str) -> str:
    """An instance's name as it stands in the name of an environment variable, in lower case."""
    return name.replace("-", "_")
