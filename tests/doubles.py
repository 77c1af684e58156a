"""FSDP1 and DeepSpeed on CPU, for tests: subclasses of Lightning's own strategies that lift its CUDA-only guards.

They are test doubles of the guards and of nothing else: sharding, communication over gloo and optimizer steps are
the real ones. The self-test that ships with the package needs them too, so they live there.
"""

from lightning_llmopt.selftest._doubles import CPUFSDP as CPUFSDP
from lightning_llmopt.selftest._doubles import CPUDeepSpeed as CPUDeepSpeed
from lightning_llmopt.selftest._doubles import deepspeed_is_here as deepspeed_is_here
