"""What the rate should be: an update number goes in, a multiplier of the base rate comes out."""

from .durations import Duration as Duration
from .durations import parse_duration as parse_duration
from .named import constant as constant
from .named import cosine as cosine
from .named import linear as linear
from .named import wsd as wsd
from .phases import Phase as Phase
from .phases import Schedule as Schedule
from .shapes import SHAPES as SHAPES
from .spec import PhaseSpec as PhaseSpec
from .spec import ScheduleSpec as ScheduleSpec
