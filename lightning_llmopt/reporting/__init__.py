"""After the run: its log on one page."""

from .report import report as report
