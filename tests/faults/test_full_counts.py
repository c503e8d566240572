import subprocess
from collections.abc import Callable

import pytest


@pytest.mark.long
@pytest.mark.timeout(4 * 3600)
def test_every_kind_is_exact(
    run_faults: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = run_faults(timeout_s=4 * 3600)
    assert done.returncode == 0, done.stdout + done.stderr
