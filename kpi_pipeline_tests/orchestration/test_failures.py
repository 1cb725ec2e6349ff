"""Errors that a person can correct, as Dagster reports them."""

import dagster as dg
import pytest

from kpi_pipeline.errors import KpiError
from kpi_pipeline.orchestration.failures import kpi_errors_as_failures


def test_a_kpi_error_becomes_a_failure_with_its_message_alone_that_is_not_retried() -> None:
    with pytest.raises(dg.Failure) as caught, kpi_errors_as_failures():
        raise KpiError("Do this next.") from ValueError("an inner one")

    assert caught.value.description == "Do this next."
    assert caught.value.allow_retries is False
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__, "no stack trace of the error is shown"


@pytest.mark.parametrize("error", [ValueError("a bug"), dg.Failure("a failure of its own")])
def test_any_other_error_passes_unchanged(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, kpi_errors_as_failures():
        raise error

    assert caught.value is error
