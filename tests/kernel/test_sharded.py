from pathlib import Path

import pytest
from simulated_devices import check_program

PROGRAM = Path(__file__).with_name("sharded_program.py")


@pytest.mark.slow
def test_eight_devices():
    check_program(PROGRAM, "sharded kernels agree")


@pytest.mark.slow
def test_two_processes_of_four_devices():
    """As on two hosts, each process makes the same call and holds its own rows."""
    check_program(PROGRAM, "sharded kernels agree", processes=2)
