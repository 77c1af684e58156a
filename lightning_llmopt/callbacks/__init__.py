"""When to act and where to log: Lightning callbacks that attach to any LightningModule."""

from .adagc import AdaGC as AdaGC
from .adaptive_gradient_clip import AdaptiveGradientClip as AdaptiveGradientClip
from .branches import Branches as Branches
from .branches import branch as branch
from .branches import branch_many as branch_many
from .clip_advisor import ClipAdvisor as ClipAdvisor
from .gradient_norm_clip import GradientNormClip as GradientNormClip
from .gradient_norm_monitor import GradientNormMonitor as GradientNormMonitor
from .gradient_value_clip import GradientValueClip as GradientValueClip
from .hyperparameter_schedule import HyperparameterSchedule as HyperparameterSchedule
from .independent_weight_decay import IndependentWeightDecay as IndependentWeightDecay
from .layerwise_lr_decay import LayerwiseLRDecay as LayerwiseLRDecay
from .lr_finder import LRFinder as LRFinder
from .lr_finder import find_lr as find_lr
from .lr_schedule import LRSchedule as LRSchedule
from .mu_transfer import MuTransfer as MuTransfer
from .param_groups import ParamGroups as ParamGroups
from .run_summary import RunSummary as RunSummary
from .skip_bad_steps import SkipBadSteps as SkipBadSteps
from .use_optimizer import UseOptimizer as UseOptimizer
from .weight_decay_split import WeightDecaySplit as WeightDecaySplit
from .zclip import ZClip as ZClip
