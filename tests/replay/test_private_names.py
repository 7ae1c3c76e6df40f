"""What is private in torch: all of it is there, and none of it outside of replay."""

import importlib
import inspect
import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import l2l_evograd

PACKAGE = Path(l2l_evograd.__file__).parent
CORE = ["algorithms", "bilevel", "estimators", "updates", "unroll", "oracle"]


def code_of(*folders):
    """Return the texts of the core's modules in these folders, by path."""
    paths = [path for folder in folders for path in (PACKAGE / folder).glob("*.py")]
    return {path: path.read_text(encoding="utf-8") for path in paths}


NAMES = [
    "autograd.forward_ad._set_fwd_grad_enabled",
    "_C.DisableTorchFunctionSubclass",
    "_C.TensorBase.grad",
    "_C._current_graph_task_id",
    "_C.TensorBase.is_leaf",
    "_C.TensorBase.requires_grad",
    "_C._functorch.get_unwrapped",
    "_C._functorch.is_functorch_wrapped_tensor",
    "_C._get_flash_sdp_enabled",
    "_C._get_mem_efficient_sdp_enabled",
    "_C._get_cudnn_sdp_enabled",
    "_C._get_math_sdp_enabled",
    "_C._set_sdp_use_flash",
    "_C._set_sdp_use_mem_efficient",
    "_C._set_sdp_use_cudnn",
    "_C._set_sdp_use_math",
    "_dynamo.eval_frame.cached_backends",
    "_weight_norm",
    "jit.ScriptModule",
    "Tag.nondeterministic_seeded",
]


@pytest.mark.parametrize("name", NAMES)
def test_private_names_of_torch_that_are_used_exist(name):
    if name.startswith("_dynamo"):
        importlib.import_module("torch._dynamo.eval_frame")
    found = torch
    for part in name.split("."):
        found = getattr(found, part)


def test_all_private_names_of_torch_that_are_used_are_known_here():
    used = set()
    for text in code_of("replay").values():
        used |= set(re.findall(r"torch\.(_[\w.]*\w)", text))
        used |= {f"_C.{name}" for name in re.findall(r"\bc\.(_\w+)", text)}
    known = {name for name in NAMES if name.startswith("_")}
    known |= {"_dynamo.eval_frame", "_C", "_C.TensorBase"}
    assert used <= known


def test_a_recorder_overrides_a_method_that_dispatch_modes_have():
    method = inspect.getattr_static(TorchDispatchMode, "_should_skip_dynamo", None)
    if method is None:
        pytest.skip("older releases of torch have no such method")
    assert isinstance(method, classmethod)
    assert isinstance(TorchDispatchMode._should_skip_dynamo(), bool)


def test_functions_of_a_graph_tell_what_they_were_given_and_what_they_saved():
    x = torch.ones(2, 3, requires_grad=True)
    function = x.exp().grad_fn
    (metadata,) = function._input_metadata
    assert list(metadata.shape) == [2, 3] and metadata.dtype == torch.float32
    saved = [name for name in dir(type(function)) if name.startswith("_raw_saved")]
    assert saved == ["_raw_saved_result"]
    if not hasattr(function._raw_saved_result, "unpack_hook"):
        return  # older releases do not tell, and learners then go on with copies
    assert function._raw_saved_result.unpack_hook is None
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):
        assert x.exp().grad_fn._raw_saved_result.unpack_hook is not None


def test_tensors_tell_their_base_and_version_and_calls_their_schema():
    x = torch.ones(4)
    assert x[:2]._base is x and x._base is None
    x[:2].add_(1)
    assert x._version == 1
    schema = torch.ops.aten.add_.Tensor._schema
    assert schema.name == "aten::add_"
    assert [bool(a.alias_info and a.alias_info.is_write) for a in schema.arguments] == [
        True,
        False,
        False,
    ]
    out = torch.ops.aten.softmax.int_out._schema.arguments[-1]
    assert out.kwarg_only and out.name == "out"


def test_modules_hold_what_copies_look_for():
    layer = nn.LSTM(2, 2)
    assert [getattr(layer, name) for name in layer._flat_weights_names]
    assert all(
        flat is getattr(layer, name)
        for flat, name in zip(
            layer._flat_weights, layer._flat_weights_names, strict=True
        )
    )
    assert nn.Linear(1, 1)._compiled_call_impl is None
    assert "_orig_mod" in torch.compile(nn.Linear(1, 1), backend="eager")._modules
    for place in ("_parameters", "_buffers", "_modules"):
        assert isinstance(vars(layer)[place], dict)


# The lists' functions are in torch's documentation, whatever their names begin with.
PRIVATE = re.compile(r"torch\._(?!foreach_)|\._C\b|from torch[\w.]*\._")


def test_nothing_private_of_torch_is_used_outside_of_replay():
    offenders = [
        f"{path.relative_to(PACKAGE)}: {line.strip()}"
        for path, text in code_of("", *CORE).items()
        for line in text.splitlines()
        if PRIVATE.search(line)
    ]
    assert offenders == []
