import subprocess
import sys

from zoo.orca.learn import trigger
from zoo.util import triggers


def test_names_are_those_of_their_home() -> None:
    ours = {"EverySeconds", "Moment", "Trigger"}
    assert set(triggers.__all__) == set(trigger.__all__) - ours
    assert all(getattr(triggers, name) is getattr(trigger, name) for name in triggers.__all__)


def test_import_loads_no_framework() -> None:
    program = "import sys, zoo.util.triggers; print({'torch', 'tensorflow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout == b"set()\n"
