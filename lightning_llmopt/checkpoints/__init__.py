"""What a checkpoint or a run's folder holds, and what is wrong with it, told without unpickling anything."""

from .diagnosis import Diagnosis as Diagnosis
from .diagnosis import Finding as Finding
from .doctor import diagnose as diagnose
