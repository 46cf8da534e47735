"""Models of other libraries: those that are installed here, and the record of the others."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

DATA = Path(__file__).parents[1] / "book" / "data"
sys.path.insert(0, str(DATA))

import other_libraries  # noqa: E402 -- its folder is not a package


@pytest.mark.slow
@pytest.mark.parametrize("make", other_libraries.LIBRARIES, ids=lambda make: make.__name__)
def test_a_model_goes_through_kernel_diagnosis_and_training(make):
    if not other_libraries.installed(other_libraries.LIBRARIES[make]):
        pytest.skip(f"{other_libraries.LIBRARIES[make]} is not installed")
    check(other_libraries.outcome(make))


def test_the_record_has_all_libraries():
    record = json.loads((DATA / "other-libraries.json").read_text("utf-8"))
    assert list(record["libraries"]) == [make.__name__ for make in other_libraries.LIBRARIES]
    for row in record["libraries"].values():
        check(row)


def check(row):
    assert row["difference"] < 1e-5  # they create their parameters in single precision
    assert row["in_products"] >= 1
    assert row["parameters"] == 501
    assert row["losses"][1] < 0.1 * row["losses"][0]
    assert row["verdict"]


def test_flax_and_equinox_are_tested_here():
    assert all(importlib.util.find_spec(name) for name in ("flax", "equinox"))
