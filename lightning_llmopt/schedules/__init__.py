"""What the rate should be: an update number goes in, a multiplier of the base rate comes out."""

from .durations import Duration as Duration
from .durations import parse_duration as parse_duration
from .joined import cosine_restarts as cosine_restarts
from .joined import multi_step as multi_step
from .joined import piecewise as piecewise
from .joined import sequence as sequence
from .named import constant as constant
from .named import cosine as cosine
from .named import inverse_sqrt as inverse_sqrt
from .named import linear as linear
from .named import one_cycle as one_cycle
from .named import polynomial as polynomial
from .named import power as power
from .phases import Phase as Phase
from .phases import Schedule as Schedule
from .registry import RECIPES as RECIPES
from .registry import by_name as by_name
from .shapes import SHAPES as SHAPES
from .spec import PhaseSpec as PhaseSpec
from .spec import ScheduleSpec as ScheduleSpec
from .trunks import half_life as half_life
from .trunks import rewarm as rewarm
from .trunks import wsd as wsd
from .trunks import wsd_s as wsd_s
