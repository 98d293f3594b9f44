"""A list of terms as tables: which monomials meet at which end of the synapse, and where each coefficient goes."""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarule.terms import FACTORS, Monomial, Term


class Table(NamedTuple):
    """Terms with the same power of the weight: sum over (row, column) of a coefficient times row column^T.

    Coefficient of N products: that of term `terms[n]`, times `signs[n]`, goes to `places[n]`, row-major.
    """

    power: int
    rows: tuple[Monomial, ...]
    columns: tuple[Monomial, ...]
    terms: Int[Tensor, "N"]
    signs: Float[Tensor, "N"]
    places: Int[Tensor, "N"]

    def coefficients(self, given: Float[Tensor, "R K"]) -> Float[Tensor, "R rows_columns"]:
        """The coefficients of all pairs from those of the terms."""
        table = given.new_zeros(given.shape[0], len(self.rows) * len(self.columns))
        parts = given.index_select(1, self.terms).mul_(self.signs.to(given.dtype))
        return table.index_add_(1, self.places, parts)

    def terms_gradient(self, of_pairs: Float[Tensor, "R rows_columns"], terms: int) -> Float[Tensor, "R K"]:
        """The gradient in the terms' coefficients from that in those of all pairs: the transpose of `coefficients`."""
        seen = of_pairs[:, self.places] * self.signs.to(of_pairs.dtype)
        return of_pairs.new_zeros(len(of_pairs), terms).index_add_(1, self.terms, seen)

    @property
    def used(self) -> list[int]:
        """Whether each pair is in any term."""
        met = set(self.places.tolist())
        return [int(place in met) for place in range(len(self.rows) * len(self.columns))]


@functools.lru_cache(maxsize=256)
def tabled(terms: tuple[Term, ...], turned: bool = False) -> tuple[Table, ...]:
    """One table per power of the weight; `turned` for weights that are stored (J I): pre is then on the rows' side.

    What is one number per event is on the rows' side always.
    """
    columns_hold = "post" if turned else "pre"
    products: dict[int, list[tuple[int, float, Monomial, Monomial]]] = {}
    for k, term in enumerate(terms):
        for sign, part in term.parts:
            column = tuple(each for each in part if FACTORS[each[0]].side == columns_hold)
            row = tuple(each for each in part if each not in column and each[0] != "weight")
            products.setdefault(dict(part).get("weight", 0), []).append((k, sign, row, column))
    tables = []
    for power, members in sorted(products.items()):
        rows = tuple(dict.fromkeys(row for _, _, row, _ in members))
        columns = tuple(dict.fromkeys(column for _, _, _, column in members))
        places = [rows.index(row) * len(columns) + columns.index(column) for _, _, row, column in members]
        tables.append(
            Table(
                power,
                rows,
                columns,
                torch.tensor([k for k, *_ in members]),
                torch.tensor([sign for _, sign, *_ in members], dtype=torch.float64),
                torch.tensor(places),
            )
        )
    return tuple(tables)
