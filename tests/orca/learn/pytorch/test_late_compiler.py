import subprocess
from collections.abc import Callable

import pytest

PROGRAM = """
import copy, pickle, sys, torch
from torch import nn
import zoo.orca.learn.pytorch.framework
from zoo.orca.learn.pytorch.late_compiler import _Parts, _StandIn, put_off_compiler

def steps(model):
    draw = torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.rand(4, 3, generator=draw)).sum().backward()
        optimizer.step()
    return optimizer, [p.detach().clone() for p in model.parameters()]

first = nn.Linear(3, 1)
second = copy.deepcopy(first)
optimizer, before = steps(first)
assert isinstance(sys.modules["torch._dynamo"], _StandIn)
import inspect, torch.distributed.tensor
inspect.getmodule(inspect.currentframe())
assert "torch._dynamo.utils" not in sys.modules

import torch._dynamo.config as config
assert config is sys.modules["torch._dynamo.config"] is torch._dynamo.config
assert config.__spec__.loader is not None and config.__spec__.name == "torch._dynamo.config"
assert not isinstance(torch._dynamo, _StandIn)
assert not any(isinstance(finder, _Parts) for finder in sys.meta_path)
put_off_compiler()
assert not isinstance(torch._dynamo, _StandIn)

# An optimizer from before the compiler came, and one from after.
optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))]})
optimizer.step()
_, after = steps(second)
assert all(map(torch.equal, before, after))

compiled = torch.compile(lambda x: x * 2 + 1, backend="eager")
assert compiled(torch.ones(2)).tolist() == [3.0, 3.0]
assert torch._dynamo.utils.counters["frames"]["ok"] == 1
"""

BY_ATTRIBUTE = """
import sys, torch
from zoo.orca.learn.pytorch.late_compiler import put_off_compiler
put_off_compiler()
assert "torch._dynamo.utils" not in sys.modules
assert torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1)).item() == 2
assert torch._dynamo.utils.counters["frames"]["ok"] == 1
assert torch._dynamo is sys.modules["torch._dynamo"]
"""


@pytest.mark.slow
def test_compiler_comes_when_it_is_wanted(
    fresh_python: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    for program in (PROGRAM, BY_ATTRIBUTE):
        done = fresh_python(program)
        assert done.returncode == 0, done.stderr
