"""Diagnoses PINNs of known causes, and counts how often the cause comes first.

python book/data/blind_test.py

takes about ten minutes. The cases are in tests/diagnosis: those that the rules were made with, those that they were then
mended with, and those that were written without knowledge of the rules and diagnosed once.
"""

import importlib
import json
import sys
from pathlib import Path

import jax

import pinnntk_lib as pn
from pinnntk_lib.experiments import provenance

jax.config.update("jax_enable_x64", True)

DATA = Path(__file__).parent
SETS = {
    "seen": "seen_cases",
    "mended": "mended_cases",
    "blind": "blind_cases",
}
sys.path.insert(0, str(DATA.parents[1] / "tests" / "diagnosis"))


def causes(make):
    """Return the names of the causes that are found in a case, the likeliest first."""
    apply, params, problem, points, optimizer = make()
    found = pn.diagnose(apply, params, problem, points, optimizer=optimizer)
    return [finding.name for finding in found.findings if finding.is_cause]


def main():
    record = provenance("python book/data/blind_test.py")
    for name, module in SETS.items():
        cases = importlib.import_module(module).CASES
        record[name] = [
            {"case": case, "cause": cause, "found": causes(make)}
            for case, (cause, make) in cases.items()
        ]
        right = sum(
            row["found"][:1] == ([row["cause"]] if row["cause"] else [])
            for row in record[name]
        )
        print(f"{name}: {right} of {len(record[name])} right", flush=True)
    (DATA / "blind-test.json").write_text(
        json.dumps(record, indent=1) + "\n", "utf-8"
    )


if __name__ == "__main__":
    main()
