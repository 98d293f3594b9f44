"""The room of credit: how a unit learns of its error, one file per kind; the folder is the registry."""

from metarule.collect import collect
from metarule.credit.base import CreditAssignment

__all__ = ["CREDIT", "CreditAssignment"]

CREDIT = collect(__name__, CreditAssignment)
