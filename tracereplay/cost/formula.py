"""Formulas of a profile: arithmetic over its parameters, on numbers or NumPy arrays. Nothing else is run."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


class FormulaError(ValueError):
    """A formula that is not plain arithmetic over known names."""


def names(formula: str) -> frozenset[str]:
    """Names that a formula uses. Raises :class:`FormulaError` when it does not parse."""
    return frozenset(node.id for node in ast.walk(_parse(formula)) if isinstance(node, ast.Name))


def evaluate(formula: str, values: Mapping[str, Any]) -> Any:
    """Value of ``formula``, e.g. ``"single - free_share * single"``; arrays give arrays.

    Raises :class:`FormulaError` for anything but ``+ - * /``, numbers, parentheses and names in ``values``.
    """
    return _value(_parse(formula), values)


def _parse(formula: str) -> ast.expr:
    try:
        return ast.parse(formula, mode="eval").body
    except SyntaxError as error:
        raise FormulaError(f"cannot read {formula!r}: {error.msg}") from None


def _value(node: ast.expr, values: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = _value(node.left, values), _value(node.right, values)
        try:
            return _OPERATORS[type(node.op)](left, right)
        except ZeroDivisionError:
            raise FormulaError("division by zero") from None
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand, values)
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return node.value
    if isinstance(node, ast.Name):
        if node.id not in values:
            raise FormulaError(f"unknown parameter {node.id!r}")
        return values[node.id]
    raise FormulaError(f"only + - * / over numbers and parameters, not {ast.unparse(node)!r}")
