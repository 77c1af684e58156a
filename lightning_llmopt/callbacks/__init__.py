"""When to act and where to log: Lightning callbacks that attach to any LightningModule."""

from .gradient_norm_clip import GradientNormClip as GradientNormClip
from .gradient_norm_monitor import GradientNormMonitor as GradientNormMonitor
from .lr_schedule import LRSchedule as LRSchedule
