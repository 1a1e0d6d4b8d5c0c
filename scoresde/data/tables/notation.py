"""Notations of numbers and dates that are not read: which cells have one, and how the value is written instead."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["DATE_RULE", "is_other_date", "month_position", "plain_number", "remedies"]

DATE_RULE = "a date must be written as 2024-02-29 or 2024-02-29T12:30:00"

_UNIT = r"(?:[$€£¥%]|(?:USD|EUR|GBP|CHF|JPY|CNY|INR|CAD|AUD|SEK|NOK|DKK|PLN|CZK)\b)"
_DIGITS = r"\d[\d.,'’ \u00a0\u202f]*"
_NUMBER = re.compile(rf"(?P<open>\()?\s*(?P<a>[+−–-]?)\s*(?P<c>{_UNIT})?\s*(?P<b>[+−–-]?)(?P<digits>{_DIGITS}|\.\d+)"
                     rf"\s*(?P<d>{_UNIT})?\s*(?P<close>\))?")  # fmt: skip
_GROUPS = re.compile(r"\d{1,3}([.,'’ \u00a0\u202f])\d{3}(?:\1\d{3})*(?:(?!\1)[.,]\d+)?")
_TIME = r"[T ,]+\d{1,2}:\d\d(?::\d\d)?(?: ?[AaPp][Mm])?"
_DATE = re.compile(rf"(?:(\d{{1,2}})([./-])(\d{{1,2}})\2\d{{4}}|\d{{4}}([./])\d{{1,2}}\4\d{{1,2}})(?:{_TIME})?")


def plain_number(text: str, decimal: str = ".") -> str | None:
    """The number that a text stands for, without the notation around it, if there is one.

    A currency or percent sign, a mark between thousands, parentheses of accountants or a typographic minus make a
    notation. A decimal comma alone does not: the option ``decimal`` reads it. The percent sign is left out: 4 % is 4.

    Args:
        text: A cell.
        decimal: The decimal mark that decides between 1,234 and 1.234, and that the answer has.

    Returns:
        The number, such as ``"-1234.5"`` for ``"(1.234,50 €)"``; None if ``text`` is plain, or no number.
    """
    match = _NUMBER.fullmatch(text.strip())
    if match is None or bool(match["open"]) != bool(match["close"]) or (match["a"] and match["b"]):
        return None
    sign, digits = match["a"] + match["b"], match["digits"].strip()
    groups, marks = _GROUPS.fullmatch(digits), re.findall(r"\D", digits)
    either = groups is not None and marks in ([","], ["."])  # 1,234: the mark may be that of decimals
    if (groups is None or either) and not (match["c"] or match["d"] or match["open"] or sign in ("−", "–")):
        return None
    if groups is not None and not (either and (marks == [decimal] or digits.startswith("0"))):
        digits = digits.replace(groups[1], "")
    digits = digits.replace(",", ".")
    if not re.fullmatch(r"\d+(?:\.\d+)?|\.\d+", digits):
        return None
    return ("-" if match["open"] or sign in ("-", "−", "–") else "") + digits.replace(".", decimal)


def is_other_date(text: str) -> bool:
    """Whether a text is a date of numbers in another order or with other marks, such as 29.2.2024 or 2/29/2024."""
    return _DATE.fullmatch(text.strip()) is not None


def month_position(texts: Iterable[str]) -> str:
    """How pandas reads dates of these texts: which of day and month comes first, where one number is beyond 12."""
    fields = [(match[1], match[3]) for match in map(_DATE.fullmatch, map(str.strip, texts)) if match and match[1]]
    if any(int(first) > 12 for first, _ in fields):
        return ", dayfirst=True"
    if not fields or any(int(second) > 12 for _, second in fields):
        return ""
    return ", dayfirst=…"


def remedies(name: str) -> str:
    """What may be done with a column instead of rewriting it."""
    leave_out, keep = (f"kinds={{{name!r}: {kind!r}}}" for kind in ("identifier", "category"))
    return f"leave the column out with {leave_out}, or keep its texts with {keep}."
