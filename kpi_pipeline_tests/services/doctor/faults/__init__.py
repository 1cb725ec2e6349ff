"""The faults that the doctor knows; importing these modules adds theirs."""

from kpi_pipeline_tests.services.doctor.faults import bison, machine, work
from kpi_pipeline_tests.services.doctor.faults.fault import FAULTS, Fault

__all__ = ["FAULTS", "Fault", "bison", "machine", "work"]
