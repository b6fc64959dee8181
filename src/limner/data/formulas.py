"""Cells of CSV files that a spreadsheet would run as formulas.

A cell that begins with `=`, `+`, `-` or `@` is a formula in Excel, LibreOffice and Google Sheets; it can read other
cells and send them away.  The usual remedy is an apostrophe in front.
"""

import re

_FORMULA = re.compile("'*[=+@\t\r-]")  # with the apostrophes that `mark_formula` would add again


def mark_formula(cell: str) -> str:
    """The cell, with an apostrophe in front when a spreadsheet would run it.

    >>> mark_formula("=1+1"), mark_formula("a dog")
    ("'=1+1", 'a dog')
    """
    return f"'{cell}" if _FORMULA.match(cell) else cell


def unmark_formula(cell: str) -> str:
    """The inverse of `mark_formula`.

    >>> unmark_formula("'=1+1"), unmark_formula("'tis a dog")
    ('=1+1', "'tis a dog")
    """
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
