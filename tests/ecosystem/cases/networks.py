"""The networks of the zoo."""

from .plain import plain
from zoo import ZOO

CASES = [plain(entry) for entry in ZOO]
