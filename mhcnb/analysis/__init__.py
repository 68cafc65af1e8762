"""The laboratory: what the connections of a trained model do, measured on a batch or many, and how runs compare."""

from mhcnb.analysis.measure import Measurement, measure
from mhcnb.analysis.record import Record, record

__all__ = ["Measurement", "Record", "measure", "record"]
