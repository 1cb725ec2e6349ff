"""Figures that are measured, not asserted: `make bench` prints them as tables."""
