"""What people write for an amount - `5 min`, `8 GB`, `1kWh`, `$20` - as a number in the unit we reckon in."""

from __future__ import annotations

import re
from typing import Literal

from shoestring.errors import SettingError, shown

Unit = Literal["s", "B", "J", "USD"]

_TIME = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1.0),
    **dict.fromkeys(("ms", "millisecond", "milliseconds"), 1e-3),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), 86400.0),
    **dict.fromkeys(("w", "week", "weeks"), 604800.0),
}
_BYTES = {
    **dict.fromkeys(("b", "byte", "bytes"), 1.0),
    **{name: 1e3**step for step, letter in enumerate("kmgtp", 1) for name in (letter, f"{letter}b")},
    **{name: 1024.0**step for step, letter in enumerate("kmgtp", 1) for name in (f"{letter}i", f"{letter}ib")},
}
# Case matters for energy: mWh and MWh are a billion apart, so the small prefixes are not accepted in any spelling.
_ENERGY = {"J": 1.0, "kJ": 1e3, "MJ": 1e6, "GJ": 1e9, "Wh": 3.6e3, "kWh": 3.6e6, "MWh": 3.6e9, "GWh": 3.6e12}
_ENERGY |= {
    "j": 1.0,
    "joule": 1.0,
    "joules": 1.0,
    "kj": 1e3,
    "KJ": 1e3,
    "wh": 3.6e3,
    "WH": 3.6e3,
    "kwh": 3.6e6,
    "KWh": 3.6e6,
    "KWH": 3.6e6,
}
_MONEY = {
    **dict.fromkeys(("usd", "$", "us$", "dollar", "dollars"), 1.0),
    **dict.fromkeys(("c", "ct", "cent", "cents", "¢"), 0.01),
}
_TABLES: dict[str, dict[str, float]] = {"s": _TIME, "B": _BYTES, "J": _ENERGY, "USD": _MONEY}
_WRITTEN = {
    "s": ("d", "h", "min", "s", "ms"),
    "B": ("TiB", "TB", "GiB", "GB", "MiB", "MB", "KiB", "KB", "B"),
    "J": ("MWh", "kWh", "MJ", "kJ", "J"),
    "USD": ("usd",),
}
"""Units in which an amount is written, the largest first."""
_EXAMPLES = {
    "s": "90 s, 5 min, 1h30min, 2 days",
    "B": "512 MB, 8 GB, 8 GiB",
    "J": "500 kJ, 1 kWh",
    "USD": "$20, 20 USD, 50 cents",
}
_PART = re.compile(r"\s*((?:\d{1,3}(?:[,_]\d{3})+|\d+)?(?:\.\d+)?(?:[eE][+-]?\d+)?)\s*([^\d\s.,+-]*)\s*")


LARGEST = 1e18
"""No amount may be larger: seconds, bytes, joules or dollars beyond it are a slip of the finger."""


def parse(text: str | int | float, unit: Unit, where: str) -> float:
    """An amount as a number of `unit`: seconds, bytes, joules or US dollars. A bare number is taken to be in that unit.

    KB, MB, GB are powers of 1000; KiB, MiB, GiB of 1024.

    >>> parse("1h30min", "s", "budget.time")
    5400.0

    Args:
        where: what the amount is for, such as "budget.time"; an error starts with it.

    Raises:
        SettingError: no amount, an unknown unit, or an amount that is not above 0.
    """
    if isinstance(text, bool) or not isinstance(text, (str, int, float)):
        raise _wrong(text, unit, where)
    value = _sum_of_parts(text, unit, where) if isinstance(text, str) else text
    if not 0 < value <= LARGEST:
        raise SettingError(
            f"{where}: must be above 0 and at most {LARGEST:g} {unit}, got {shown(text)}; leave it out for no limit"
        )
    return float(value)


def written(value: float, unit: Unit) -> str:
    """An amount as people write it, which `parse` reads back to the last bit.

    >>> written(300.0, "s"), written(8e9, "B"), written(3.6e6, "J"), written(2.0, "USD")
    ('5 min', '8 GB', '1 kWh', '$2')
    """
    for name in _WRITTEN[unit]:
        number = f"{value / _TABLES[unit][name.lower() if unit == 'B' else name]:g}"
        text = f"${number}" if name == "usd" else f"{number} {name}"
        if "e" not in number and float(number) >= 1 and parse(text, unit, "") == value:
            return text
    return f"{value!r} {unit}"


def _sum_of_parts(text: str, unit: Unit, where: str) -> float:
    """`1h30min` is two parts; only time may have more than one."""
    table, rest, total, parts = _TABLES[unit], text.strip(), 0.0, 0
    prefix = re.match(r"(us)?\$\s*(?=[\d.])", rest, re.IGNORECASE) if unit == "USD" else None
    rest = rest[prefix.end() :] if prefix else rest
    while rest:
        match = _PART.match(rest)
        if match is None or not match[1]:
            raise _wrong(text, unit, where)
        name = match[2] or ("USD" if prefix else "")
        factor = 1.0 if not name and not parts else table.get(name) or (table.get(name.lower()) if unit != "J" else None)
        if factor is None or (parts and unit != "s"):
            raise _wrong(text, unit, where)
        total += float(match[1].replace(",", "").replace("_", "")) * factor
        rest, parts = rest[match.end() :], parts + 1
        if not name and rest:
            raise _wrong(text, unit, where)
    if not parts:
        raise _wrong(text, unit, where)
    return total


def _wrong(text: object, unit: Unit, where: str) -> SettingError:
    return SettingError(f"{where}: can't read {shown(text)} as an amount of {unit}; write for example {_EXAMPLES[unit]}")
