import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("memory_program.py")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize(("name", "count"), [("ntk_diagonal", 1000), ("ntk", 200)])
def test_new_operators_need_no_more_and_more_memory(name, count):
    """As in a notebook whose cells are executed again and again. Each operator's compiled code takes about a MB."""
    run = [sys.executable, PROGRAM, name, str(count)]
    output = subprocess.run(run, check=True, text=True, capture_output=True, timeout=1800).stdout
    assert float(output.split()[2]) < 50
