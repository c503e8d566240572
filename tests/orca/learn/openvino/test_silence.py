"""Nothing is told to the makers of OpenVINO and NNCF."""

import json
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zoo.orca.learn.openvino.silence import without_telemetry

PROGRAM = """
import json, os, socket, sys, urllib.request
reached = []
def note(self, address):
    reached.append(str(address))
    raise OSError("no network here")
socket.socket.connect = note
import numpy as np
import torch
from zoo.orca.learn.openvino import to_openvino
from zoo.orca.learn.openvino.runtime import joined_files
from zoo.orca.learn.openvino.quantize import Measured, quantize_model
from zoo.orca.learn.openvino.files import graph_files
from pathlib import Path

folder = Path(os.environ["HOME"])
x = np.random.default_rng(0).random((20, 4)).astype("float32")
model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
xml = Path(to_openvino(model, folder / "m.xml", sample=x))
blob = joined_files(xml.read_bytes(), xml.with_suffix(".bin").read_bytes())
measured = Measured([x], [np.zeros(20)], lambda *_: 1.0, 0.1)
assert quantize_model(blob, str(xml), str(folder / "q.xml"), [x], measured).is_int8
print(json.dumps([reached, sorted(p.name for p in folder.iterdir()),
                  "openvino_telemetry" in sys.modules]))
"""


@pytest.mark.slow
def test_nothing_is_sent_and_nothing_is_kept(
    tmp_path: Path, fresh_python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = fresh_python(PROGRAM, HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == [[], ["m.bin", "m.xml", "q.bin", "q.xml"], False]


def test_what_the_program_has_imported_is_still_meanwhile(monkeypatch: Any) -> None:
    sent: list[str] = []

    class Telemetry:
        def send_event(self, event: str) -> None:
            sent.append(event)

    package: Any = types.ModuleType("openvino_telemetry")
    package.Telemetry = Telemetry
    monkeypatch.setitem(sys.modules, "openvino_telemetry", package)
    with without_telemetry():
        Telemetry().send_event("ours")
    Telemetry().send_event("theirs")
    assert sent == ["theirs"]


def test_the_package_can_be_imported_afterwards(monkeypatch: Any) -> None:
    monkeypatch.delitem(sys.modules, "openvino_telemetry", raising=False)
    with without_telemetry(), pytest.raises(ImportError):
        __import__("openvino_telemetry")
    assert "openvino_telemetry" not in sys.modules
