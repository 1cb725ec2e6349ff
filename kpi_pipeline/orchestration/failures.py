"""How an error that a person can correct fails a run or a tick in Dagster."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from kpi_pipeline.errors import KpiError


@contextmanager
def kpi_errors_as_failures() -> Iterator[None]:
    """Fail with the message of a KpiError, without a stack trace and without a retry.

    Retries would only repeat it: what can be retried was retried before it was raised. Used as a
    context manager or a decorator; a generator needs the context manager.

    Raises:
        dg.Failure: in place of a KpiError; other errors pass unchanged.
    """
    try:
        yield
    except KpiError as error:
        raise failure(str(error)) from None


def failure(message: str) -> dg.Failure:
    """A failure that Dagster does not retry, with this message."""
    return dg.Failure(message, allow_retries=False)
