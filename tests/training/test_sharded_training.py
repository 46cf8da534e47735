from pathlib import Path

import pytest
from simulated_devices import check_program

PROGRAM = Path(__file__).with_name("sharded_program.py")


@pytest.mark.slow
def test_eight_devices(tmp_path):
    check_program(PROGRAM, "sharded training agrees", tmp_path)


@pytest.mark.slow
def test_two_processes_of_four_devices(tmp_path):
    check_program(PROGRAM, "sharded training agrees", tmp_path, processes=2)
