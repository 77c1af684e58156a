"""Bytes as people write them: 80 GB are 80 * 10**9 bytes, 80 GiB are 80 * 2**30."""

import math
import re
from fractions import Fraction

UNITS = {
    "B": 1,
    **{f"{prefix}B": 1000**power for power, prefix in enumerate(("k", "M", "G", "T"), start=1)},
    **{f"{prefix}iB": 1024**power for power, prefix in enumerate(("K", "M", "G", "T"), start=1)},
}
COUNTS = {"": 1, "k": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
_SMALL = {letter.lower(): number for letter, number in COUNTS.items()}
MOST = 10**18  # parameters: a typing error lies above
_COUNT = re.compile(r"(\d+|\d{1,3}(?:,\d{3})+|\d+(?:_\d+)+)((?:\.\d+)?(?:e\+?\d{1,2})?)\s*([kmbt]?)", re.IGNORECASE)


def parse_bytes(amount: int | str, *, name: str = "memory") -> int:
    """Number of bytes.

    Args:
        amount: A whole number of bytes >= 1, or a number and a unit: B, kB, MB, GB, TB (powers of 1000), KiB, MiB,
            GiB, TiB (powers of 1024).
        name: What an error calls it.

    Raises:
        ValueError: If it is neither, or less than one byte.

    Example:
        >>> parse_bytes("80 GB"), parse_bytes("80 GiB"), parse_bytes("1.5 kB")
        (80000000000, 85899345920, 1500)
    """
    if isinstance(amount, int) and not isinstance(amount, bool) and amount >= 1:
        return amount
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)", amount.strip()) if isinstance(amount, str) else None
    if match is None or match[2] not in UNITS or (found := int(Fraction(match[1]) * UNITS[match[2]])) < 1:
        raise ValueError(
            f"{name} must be a number of bytes >= 1, or a number with one of {', '.join(UNITS)}, got {amount!r}."
        )
    return found


def unit_of(amount: int | str) -> str:
    """The unit tables are shown in: GiB where the amount was given in powers of 1024, else GB.

    Example:
        >>> unit_of("80 GB"), unit_of("80 GiB"), unit_of(85899345920)
        ('GB', 'GiB', 'GB')
    """
    return "GiB" if isinstance(amount, str) and amount.strip().endswith("iB") else "GB"


def parse_count(size: float | str, *, name: str = "model") -> int:
    """Number of parameters.

    Args:
        size: A whole number >= 1, also as a float, or a number as text, also ``"7e9"`` and ``"7_000_000_000"``, with k,
            M, B (10**9) or T, small or large, if it has a unit.
        name: What an error calls it.

    Raises:
        ValueError: If it is neither.

    Example:
        >>> parse_count("70B"), parse_count("1.5B"), parse_count("124M"), parse_count("7e9")
        (70000000000, 1500000000, 124000000, 7000000000)
    """
    found = 0
    if isinstance(size, str) and (match := _COUNT.fullmatch(size.strip())):
        digits = match[1].replace(",", "").replace("_", "")
        found = int(Fraction(digits + match[2]) * _SMALL[match[3].lower()])
    elif isinstance(size, int | float) and not isinstance(size, bool) and math.isfinite(size) and size == int(size):
        found = int(size)
    if not 1 <= found <= MOST:
        raise ValueError(f"{name} must be a number of parameters such as '70B', '124M', '7e9' or 1000, got {size!r}.")
    return found


def shown(amount: int, unit: str) -> str:
    """Three digits or more, without the unit; what is not 0 does not look like it.

    Example:
        >>> [shown(amount * 10**7, "GB") for amount in (0, 123, 1234, 12345, 123456)]
        ['0', '1.23', '12.3', '123', '1,235']
        >>> shown(10**6, "GB")
        '<.01'
    """
    value = amount / UNITS[unit]
    if 0 < value < 0.005:
        return "<.01"
    for below, digits in ((9.995, 2), (99.95, 1)):
        if 0 < value < below:
            return f"{value:.{digits}f}"
    return f"{value:,.0f}"


def shown_count(number: int) -> str:
    """A number of parameters in short.

    Example:
        >>> shown_count(124_439_808), shown_count(70_000_000_000), shown_count(900)
        ('124 M', '70.0 B', '900')
    """
    for letter in ("T", "B", "M", "k"):
        if number >= COUNTS[letter]:
            value = number / COUNTS[letter]
            return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {letter}"
    return str(number)
