"""The laboratory: what the connections of a trained model do, measured on a batch, and how runs compare."""

from mhcnb.analysis.record import Record, record

__all__ = ["Record", "record"]
