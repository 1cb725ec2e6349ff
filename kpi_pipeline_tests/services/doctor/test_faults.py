"""Each fault that the doctor knows, made: it names that one, and no other."""

import pytest

from kpi_pipeline.services.doctor.finding import Finding
from kpi_pipeline.services.doctor.run import CHECKS, examine
from kpi_pipeline_tests.services.doctor.faults import FAULTS, Fault
from kpi_pipeline_tests.services.doctor.installation import Well, not_made

each_fault = pytest.mark.parametrize("fault", FAULTS, ids=[it.name for it in FAULTS])


def test_where_all_is_well_each_check_says_so(well: Well) -> None:
    found = examine()
    assert [it for it in found if it.is_bad] == []
    assert [it.check for it in found] == [it.name for it in CHECKS]
    assert not_made(found) == {"parts"}


def test_there_is_a_fault_for_each_check() -> None:
    assert {it.check for it in FAULTS} == {it.name for it in CHECKS}


def require_named(found: list[Finding], fault: Fault) -> None:
    """Fail unless the fault is what was found wrong, and nothing else was."""
    bad = [it for it in found if it.is_bad]
    assert [(it.check, it.verdict) for it in bad] == [(fault.check, fault.verdict)], bad
    assert fault.words in bad[0].sentence


@each_fault
def test_its_check_names_a_fault(well: Well, monkeypatch: pytest.MonkeyPatch, fault: Fault) -> None:
    with fault.make(well, monkeypatch):
        require_named(examine([fault.check]), fault)


@pytest.mark.long
@each_fault
def test_of_all_checks_only_that_one_names_a_fault(
    well: Well, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    with fault.make(well, monkeypatch):
        require_named(examine(), fault)
