"""The structures of kernels/plan.h, field by field, and what fills them."""

from __future__ import annotations

import ctypes
from array import array
from ctypes import POINTER, Structure, c_double, c_int8, c_int64, c_void_p
from typing import Any

ACTIVATIONS = ("linear", "relu", "sigmoid", "softplus", "tanh")
OUTPUTS = ("softmax", "sigmoid", "linear")
CROSSINGS = {"nothing": 0, "transposed": 1, "own": 2, "own_taught": 2, "direct": 3, "signs": 4, "signs_of_own": 5}
FACTORS = (
    "post", "error", "feedback", "gain", "total_post", "agreement", "match", "pre", "pre_error", "reconstruction",
)  # fmt: skip


class Group(Structure):
    """Terms that share a power of the weight."""

    _fields_ = (
        ("power", c_int64),
        ("rows", c_int64),
        ("columns", c_int64),
        ("row", POINTER(c_int8)),
        ("column", POINTER(c_int8)),
        ("row_is", POINTER(c_int8)),
        ("column_is", POINTER(c_int8)),
        ("used", POINTER(c_int8)),
        ("coefficients", c_void_p),
        ("coefficient_gradient", c_void_p),
    )


class Rule(Structure):
    """How the weights of one projection change."""

    _fields_ = (
        ("plastic", c_int64),
        ("groups", c_int64),
        ("group", POINTER(Group)),
        ("reads", c_int64 * len(FACTORS)),
        ("rate", c_void_p),
        ("schedule", POINTER(c_double)),
        ("decay", c_double),
        ("momentum", c_double),
        ("nesterov", c_int64),
        ("velocity", c_void_p),
        ("rate_gradient", c_void_p),
        ("velocity_gradient", c_void_p),
        ("missed", c_void_p),
    )


class Projection(Structure):
    """From one population of the chain to the next."""

    _fields_ = (
        ("inputs", c_int64),
        ("outputs", c_int64),
        ("bias", c_int64),
        ("activation", c_int64),
        ("crossing", c_int64),
        ("size", c_double),
        ("error_below", c_int64),
        ("weight", c_void_p),
        ("feedback", c_void_p),
        ("weight_gradient", c_void_p),
        ("feedback_gradient", c_void_p),
        ("rule", Rule),
        ("feedback_rule", Rule),
    )


class Plan(Structure):
    """Some steps of some runs."""

    _fields_ = (
        ("layers", c_int64),
        ("projection", POINTER(Projection)),
        ("input_activation", c_int64),
        ("output", c_int64),
        ("beta", c_double),
        ("runs", c_int64),
        ("steps", c_int64),
        ("events", c_int64),
        ("x", c_void_p),
        ("y", c_void_p),
        ("x_rows", c_void_p),
        ("y_rows", c_void_p),
        ("tape", c_void_p),
        ("keeps_weights", c_int64),
        ("asked", c_int64),
        ("asked_x", c_void_p),
        ("asked_rows", c_void_p),
        ("answers", c_void_p),
        ("likelihood", c_void_p),
        ("right", c_void_p),
        ("forgets", c_int64),
        ("share", c_double),
    )


def numbers(kind: Any, values: list[float] | list[int]) -> ctypes.Array:
    """A C array of some values."""
    return (kind * len(values))(*values)


def repeated(value: float, count: int) -> ctypes.Array:
    """A C array of doubles that holds one value so many times."""
    return (c_double * count).from_buffer(array("d", [value]) * count)


def copied(structures: ctypes.Array) -> ctypes.Array:
    """An array of structures to fill in; what these point to already lives as long as those that are copied."""
    return type(structures).from_buffer_copy(structures)
