"""Every shape again, in 100-digit arithmetic: the slow oracle of the tests."""

from mpmath import mp, mpf

mp.dps = 100


def _mix(start, end, gone):
    return start + (end - start) * gone


def _piecewise(start, end, x, *to_go):
    marks = [mpf(1), *map(mpf, to_go), mpf(0)]
    place = x * (len(marks) - 1)
    piece = min(int(place), len(marks) - 2)
    share = marks[piece] + (marks[piece + 1] - marks[piece]) * (place - piece)
    return _mix(start, end, 1 - share)


EXACT = {
    "linear": lambda start, end, x: _mix(start, end, x),
    "cosine": lambda start, end, x: _mix(start, end, (1 - mp.cos(mp.pi * x)) / 2),
    "mirror_cosine": lambda start, end, x: _mix(start, end, 2 * x - (1 - mp.cos(mp.pi * x)) / 2),
    "square": lambda start, end, x: _mix(start, end, x**2),
    "sqrt": lambda start, end, x: _mix(start, end, mp.sqrt(x)),
    "polynomial": lambda start, end, x, power=2.0: _mix(start, end, 1 - (1 - x) ** mpf(power)),
    "exponential": lambda start, end, x: start * (end / start) ** x,
    "lowered_linear": lambda start, end, x, height=0.7: _mix(start, end, 1 - mpf(height) * (1 - x)),
    "piecewise": _piecewise,
}


def exact_value(name, start, end, over, steps, *settings):
    """What ``SHAPES[name]`` should return."""
    if name == "power_law":
        knee, exponent = settings
        return mpf(start) * ((mpf(knee) + over) / mpf(knee)) ** mpf(exponent)
    if name == "halving":
        return mpf(start) * mpf(0.5) ** (mpf(over) / mpf(int(settings[0])))
    return EXACT[name](mpf(start), mpf(end), mpf(over) / steps, *settings)


def ulps(value, exact):
    """Distance in units of 2**-52 of the exact value."""
    return abs(mpf(value) - exact) / (abs(exact) * mpf(2) ** -52) if exact else (0 if value == 0 else mp.inf)
