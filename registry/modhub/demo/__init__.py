"""The whole way once, on real handwritten digits: two parents, and classifiers that neither could be."""

from modhub.demo.report import REPORT_NAME, write_report
from modhub.demo.story import Measured, Step, Story, tell

__all__ = ["REPORT_NAME", "Measured", "Step", "Story", "tell", "write_report"]
