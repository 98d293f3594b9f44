"""Rows that nobody teaches: rules of pre and post activity alone, with a taught readout where a task has targets."""

from __future__ import annotations

from metarule.credit.none import Nobody
from metarule.rules.textbook import Hebb, Oja, SubspaceOja
from metarule.zoo.base import Algorithm

UNSUPERVISED: dict[str, Algorithm] = {
    "hebb": Algorithm("Hebb 1949", "what fires together wires together", Nobody(), {"forward": Hebb()}),
    "oja": Algorithm("Oja 1982", "the first principal component, every unit alone", Nobody(), {"forward": Oja()}),
    "subspace_oja": Algorithm("Oja 1989", "the principal subspace", Nobody(), {"forward": SubspaceOja()}),
}
