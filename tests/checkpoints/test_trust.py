"""Names that a pickle asks for: harmless, unknown, or code."""

import pytest

from lightning_llmopt.checkpoints.trust import INSTANTIATOR, judge_globals, judge_instantiator

HARMLESS = [
    "collections.OrderedDict", "torch.FloatStorage", "torch._utils._rebuild_tensor_v2", "torch.Size", "torch.bfloat16",
    "torch.device", "numpy.dtype", "numpy._core.multiarray.scalar", "pathlib.PosixPath", "builtins.set",
    "torch.distributed.checkpoint.metadata.Metadata", "deepspeed.runtime.fp16.loss_scaler.LossScaler",
    "lightning.fabric.utilities.data.AttributeDict", "torch.serialization._get_layout", "datetime.timedelta",
]  # fmt: skip
CODE = [
    "os.system", "posix.system", "nt.system", "subprocess.Popen", "builtins.eval", "builtins.exec", "builtins.getattr",
    "__builtin__.eval", "builtins.__import__", "runpy.run_path", "importlib.import_module", "torch.load",
    "torch.hub.load",
    "torch.storage._load_from_bytes", "pickle.loads", "operator.attrgetter", "functools.partial", "types.FunctionType",
    "builtins.open", "os.path.join", "shutil.rmtree", "webbrowser.open", "numpy.testing._private.utils.runstring",
    "a name that is put together while unpickling", "copyreg.extension 7", "torch.jit.load", "socket.socket",
]  # fmt: skip
UNKNOWN = ["mine.Model", "transformers.PretrainedConfig", "torch.nn.modules.linear.Linear", "collections.abc.Mapping"]


@pytest.mark.parametrize("name", HARMLESS)
def test_what_every_checkpoint_needs_is_passed_over(name):
    assert list(judge_globals([name])) == []


@pytest.mark.parametrize("name", CODE)
def test_code_is_an_error_that_names_it(name):
    (finding,) = judge_globals([*HARMLESS, name])
    assert finding.level == "error"
    assert f"would call {name}: code" in finding.text


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_not_known_is_a_warning_that_names_it(name):
    (finding,) = judge_globals([name])
    assert finding.level == "warning"
    assert f"would import {name}:" in finding.text


def test_many_names_are_counted():
    (finding,) = judge_globals(f"mine.C{number}" for number in range(20))
    assert "mine.C7 and 12 more:" in finding.text


def test_a_string_that_names_a_function_is_told():
    (finding,) = judge_instantiator({"_instantiator": "os.system"})
    assert finding.level == "error"
    assert "let load_from_checkpoint call 'os.system'" in finding.text
    assert list(judge_instantiator({"_instantiator": INSTANTIATOR})) == []
    assert list(judge_instantiator({"width": 3})) == list(judge_instantiator(None)) == []
