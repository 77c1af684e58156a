"""Arithmetic before the run: numbers in, numbers out."""

from .branches import BranchCost as BranchCost
from .branches import BranchRun as BranchRun
from .branches import branch_cost as branch_cost
