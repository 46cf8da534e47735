"""Compare rules for the damping and the length of Gauss–Newton steps, by the time that they take to reach an error.

    taskset -c 0 python tests/benchmarks/damping.py [PROBLEM ...] [--rules RULE ...] [--seconds S] [--seeds N]
        [--single] [--out FILE]

For weighted residuals r with Jacobian J and kernel ``K = J J^T``, all rules follow the direction

    d = -J^T (K + mu I)^{-1} r = -(J^T J + mu I)^{-1} J^T r.

The first form has one unknown per residual and the second one per parameter; the smaller system is solved. The rules
differ in how they choose mu, in how far they follow d, and in the order of the curve that they follow. A curve of
order 2 or 3 adds Taylor terms for which the residuals' own terms of that order are solved away as well ("geodesic
acceleration", Transtrum and Sethna 2012): ``theta + t d + t^2 a`` with ``a = -J^T (K + mu I)^{-1} r'' / 2``.

The gain of a step is the decrease in the loss, divided by the decrease that the linearised residuals predict. All but
the first two rules take the least damping for which the gain of some length t is large enough, searched from the last
one upwards or downwards. The dampings that a step tries are apart by factors of 3, 9, 27 and so on (curve-even: 3).
With the rules "level", it is not the loss that a step must reduce, but the squared length
``|J^T (K + mu I)^{-1} r|^2`` of the step that would correct the residuals (Deuflhard's natural level function).

| rule | damping | order of the curve | lengths t |
| --- | --- | --- | --- |
| nielsen | Nielsen's rule for Levenberg–Marquardt | 1 | 1 |
| line | nearly none | 1 | the best of 1, 1/2, ..., 2^-13 |
| full | gain >= 0.1 | 1 | 1 |
| full-2 | gain >= 0.1 | 2 | 1 |
| level | gain >= 1 - 0.9 t, as in the library for fixed points if n <= P | 2 | 1, 1/2, 1/4 |
| level-1 | the same | 1 | 1, 1/2, 1/4 |
| level-bold | gain >= 0.5 - 0.4 t | 2 | 1, 1/4, 1/16 |
| level-free | as level, even if the loss grows at dampings of the size of rounding errors | 2 | 1, 1/2, 1/4 |
| loss-bold | gain >= 0.5 - 0.4 t | 2 | 1, 1/4, 1/16, 1/64 |
| curve | gain >= 1 - 0.9 t, as in the library otherwise | 2 | 1, 1/2, 1/4 |
| curve-even | as curve | 2 | 1, 1/2, 1/4 |
| curve-low | gain >= 0.1 | 2 | 1, 1/2, 1/4 |
| curve-3 | gain >= 1 - 0.9 t | 3 | 1, 1/2, 1/4 |

To add a rule, write a function like :func:`search` and add it to ``RULES``. The times exclude compilation and the
evaluation of the error. Two threads add their CPU seconds up, so pin the program to one core if these are to compare.
"""

import argparse
import json
import math
import shlex
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from damping_problems import PROBLEMS, Case, System, error_of, least_squares, squared
from jax.flatten_util import ravel_pytree

from pinnntk_lib.experiments import provenance

ERRORS = tuple(10.0**-k for k in range(1, 8))  # the time to each of them is reported
MOST = 1e12  # the largest damping, as a fraction of the kernel's mean eigenvalue

# ---------------------------------------------------------------- rules


class Memory(NamedTuple):
    """What a rule keeps from one step to the next.

    Attributes:
        damping: mu that the next step tries first, as a fraction of the kernel's mean eigenvalue.
        growth: Nielsen's factor of the damping after the next failure.
    """

    damping: jax.Array
    growth: jax.Array


class Outcome(NamedTuple):
    """What a rule decides: the step (P,), zero if no attempt succeeded, and how it came about."""

    step: jax.Array
    memory: Memory
    attempts: jax.Array
    length: jax.Array


def nielsen(system: System, memory: Memory, max_tries: int = 10) -> Outcome:
    """Take a full step as soon as the loss decreases; the better it was predicted, the less the next step is damped."""

    def attempt(trial):
        mu = trial.memory.damping * system.mean
        step = -system.solver(mu)(system.residuals)
        gain = (system.loss - squared(system.after(step))) / system.decrease(step, mu, 1.0)
        better = gain > 0  # False for NaN
        factor = jnp.where(better, jnp.maximum(1 / 3, 1 - (2 * gain - 1) ** 3), trial.memory.growth)
        damping = jnp.clip(trial.memory.damping * factor, system.least, MOST)
        growth = jnp.where(better, 2.0, 2 * trial.memory.growth)
        return Outcome(
            jnp.where(better, step, 0.0), Memory(damping, growth), trial.attempts + 1, jnp.where(better, 1.0, 0.0)
        )

    start = nothing(system, memory._replace(damping=jnp.maximum(memory.damping, system.least)))
    return jax.lax.while_loop(lambda t: (t.length == 0) & (t.attempts < max_tries), attempt, start)


def line(system: System, memory: Memory, lengths: int = 14, damping: float = 1e-12) -> Outcome:
    """Take the length with the least loss along a direction that is hardly damped, or none if the loss would grow."""
    terms = -system.solver(max(damping, system.least) * system.mean)(system.residuals)[None]
    steps, t = candidates(terms, 0.5 ** np.arange(lengths))
    losses = losses_after(system, steps)
    best = jnp.argmin(losses)
    better = losses[best] < system.loss
    found = nothing(system, memory)
    return Outcome(
        jnp.where(better, steps[best], found.step), memory, found.attempts + 1, jnp.where(better, t[best], 0.0)
    )


class Search(NamedTuple):
    tried: jax.Array  # the damping of the next attempt
    best: Outcome  # with the least damping that passed
    passed: jax.Array
    failed: jax.Array


def search(
    system: System,
    memory: Memory,
    order: int = 1,
    lengths: tuple[float, ...] = (1.0,),
    shortfall: float = 0.9,
    factor: float = 3.0,
    growth: float = 3.0,
    max_tries: int = 10,
    natural: bool = False,
    blurred: float = 0.0,
) -> Outcome:
    """Take the step with the least damping for which some length t has ``gain >= 0.1 + shortfall (1 - t)``.

    Among the steps with this damping that pass, the one with the least loss, or level, is taken.

    Args:
        system: the linearised problem.
        memory: the damping that the last step took.
        order: the order of the curve.
        lengths: the lengths that are tried.
        shortfall: as above.
        factor: between the first two dampings.
        growth: of this factor, from one damping to the next.
        max_tries: maximum number of dampings that are tried.
        natural: whether the natural level counts instead of the loss.
        blurred: multiple of the least damping below which the loss has to decrease, whatever the level.
    """

    def attempt(search):
        mu = search.tried * system.mean
        solve = system.solver(mu)
        terms = taylor(system, solve, order)
        steps, t = candidates(terms, lengths)
        after = jax.lax.map(system.after, steps)
        losses = finite(jax.vmap(squared)(after))
        if natural:
            level, levels, decrease = natural_levels(system, solve, terms[0], after, t)
        else:
            level, levels, decrease = system.loss, losses, system.decrease(terms[0], mu, t)
        # near convergence, rounding errors can make the predicted decrease negative
        passes = ((level - levels) / decrease >= 0.1 + shortfall * (1 - t)) & (levels < level)
        passes &= (search.tried >= blurred * system.least) | (losses < system.loss)
        best = jnp.argmin(jnp.where(passes, levels, jnp.inf))
        passed = passes[best]
        found = Outcome(steps[best], Memory(search.tried, memory.growth), search.best.attempts, t[best])
        kept = jax.tree.map(lambda new, old: jnp.where(passed, new, old), found, search.best)
        apart = factor * growth**search.best.attempts
        return Search(
            jnp.clip(jnp.where(passed, search.tried / apart, search.tried * apart), system.least, MOST),
            kept._replace(attempts=kept.attempts + 1),
            search.passed | passed,
            # at the least damping, there is nothing left to try
            search.failed | ~passed | (search.tried <= system.least),
        )

    def goes_on(search):
        return ~(search.passed & search.failed) & (search.best.attempts < max_tries)

    damping = jnp.clip(memory.damping, system.least, MOST)
    start = Search(damping, nothing(system, Memory(damping, memory.growth)), jnp.array(False), jnp.array(False))
    end = jax.lax.while_loop(goes_on, attempt, start)
    return end.best._replace(memory=Memory(jnp.where(end.passed, end.best.memory.damping, end.tried), memory.growth))


SHORT = (1.0, 0.5, 0.25)
RULES = {
    "nielsen": nielsen,
    "line": line,
    "full": search,
    "full-2": partial(search, order=2),
    "level": partial(search, order=2, lengths=SHORT, natural=True, blurred=10.0),
    "level-1": partial(search, lengths=SHORT, natural=True, blurred=10.0),
    "level-bold": partial(search, order=2, lengths=(1.0, 0.25, 0.0625), shortfall=0.4, natural=True, blurred=10.0),
    "level-free": partial(search, order=2, lengths=SHORT, natural=True),
    "loss-bold": partial(search, order=2, lengths=(1.0, 0.25, 0.0625, 0.015625), shortfall=0.4),
    "curve": partial(search, order=2, lengths=SHORT),
    "curve-even": partial(search, order=2, lengths=SHORT, growth=1.0),
    "curve-low": partial(search, order=2, lengths=SHORT, shortfall=0.0),
    "curve-3": partial(search, order=3, lengths=SHORT),
}


def natural_levels(system, solve, direction, after, t):
    """Return the natural level, those of the residuals after steps (m, n), and the decreases predicted (m,)."""
    change = solve(jax.jvp(system.after, (jnp.zeros_like(direction),), (direction,))[1])
    level, levels = squared(direction), jax.lax.map(lambda residuals: squared(solve(residuals)), after)
    predicted = jax.vmap(lambda t: squared(t * change - direction))(t)
    return level, finite(levels), level - predicted


def nothing(system, memory):
    """Return the outcome of no attempts."""
    zero = jnp.zeros_like(system.loss)
    return Outcome(jnp.zeros_like(system.gradient), memory, jnp.array(0), zero)


def taylor(system, solve, order):
    """Return the terms (order, P) of the curve ``t d + t^2 a + ...``.

    Each is solved for from the residuals' Taylor coefficient of the same order along the terms before it. A term is
    zero if it is longer than 0.75 times the one before it, because the series can then not be trusted.
    """
    terms = -solve(system.residuals)[None]
    for k in range(2, order + 1):

        def path(t, terms=terms):
            return system.after(jnp.stack([t ** (i + 1) for i in range(len(terms))]) @ terms)

        coefficient = derivative(path, k)(jnp.zeros_like(system.loss)) / math.factorial(k)
        term = -solve(coefficient)
        trusted = jnp.linalg.norm(term) <= 0.75 * jnp.linalg.norm(terms[-1])
        terms = jnp.concatenate([terms, jnp.where(trusted, term, 0.0)[None]])
    return terms


def derivative(f, order):
    """Return the derivative of this order of a function of a scalar."""
    if order == 0:
        return f
    return derivative(lambda t: jax.jvp(f, (t,), (jnp.ones_like(t),))[1], order - 1)


def candidates(terms, lengths):
    """Return the steps (m, P) along a curve over these lengths, and the lengths (m,)."""
    t = jnp.asarray(lengths, terms.dtype)
    return t[:, None] ** jnp.arange(1, len(terms) + 1) @ terms, t


def losses_after(system, steps):
    """Return the losses (m,) after steps (m, P), infinity where they are not finite."""
    return finite(jax.lax.map(lambda step: squared(system.after(step)), steps))


def finite(levels):
    """Return levels with infinity in place of values that are not finite."""
    return jnp.where(jnp.isfinite(levels), levels, jnp.inf)


# ---------------------------------------------------------------- runs


def run(case: Case, rule: Callable, seconds: float, seeds: int):
    """Yield the record of a run for each seed."""
    linearise = least_squares(case)
    error = error_of(case)

    def one_step(key, i, carry):
        params, memory, attempts, length = carry
        system = linearise(params, case.points(jax.random.fold_in(key, i)))
        found = rule(system, memory)
        flat, unravel = ravel_pytree(params)
        return unravel(flat + found.step), found.memory, attempts + found.attempts, length + found.length

    @jax.jit
    def steps(key, start, stop, carry):
        with jax.default_matmul_precision("highest"):  # GPUs' reduced precision would end the search early
            return jax.lax.fori_loop(start, stop, partial(one_step, key), carry)

    for seed in range(seeds):
        params = case.init(jax.random.key(seed))
        zero = jnp.zeros((), case.test.dtype)
        start = params, Memory(zero + 1e-3, zero + 2.0), jnp.array(0), zero
        yield {"seed": seed} | timed(partial(steps, jax.random.key(seed + 100)), error, start, seconds)


def timed(steps: Callable, error: Callable, carry: Any, seconds: float) -> dict[str, Any]:
    """Take steps for some CPU seconds; return the record. Several fast steps share a call, of 20 ms or so."""
    jax.block_until_ready((steps(0, 1, carry), error(carry[0])))  # compile
    cpu = wall = 0.0
    taken, at_once, reached, now = 0, 1, {}, math.inf
    while cpu < seconds:
        before = time.process_time(), time.perf_counter()
        carry = jax.block_until_ready(steps(taken, taken + at_once, carry))
        cpu, wall = cpu + time.process_time() - before[0], wall + time.perf_counter() - before[1]
        taken += at_once
        now = float(error(carry[0]))
        for bound in ERRORS:
            if now <= bound:
                reached.setdefault(f"{bound:.0e}", {"steps": taken, "cpu_seconds": cpu, "wall_seconds": wall})
        at_once = max(1, round(0.02 * taken / max(cpu, 1e-6)))
    means = {"attempts": float(carry[2]) / taken, "length": float(carry[3]) / taken}
    return {"steps": taken, "cpu_seconds": cpu, "wall_seconds": wall, "error": now, **means, "reached": reached}


def heading() -> str:
    names = [f"{'problem':13} {'rule':9} seed {'steps':>6} {'error':>8} {'attempts':>8} {'length':>6} "]
    return " ".join(names + [f"{bound:>11.0e}" for bound in ERRORS])


def line_of(row: dict[str, Any]) -> str:
    """Return a line of the table; its last columns are CPU/wall seconds to the errors."""
    cells = [f"{row['problem']:13} {row['rule']:9} {row['seed']:4} {row['steps']:6} {row['error']:8.1e}"]
    cells += [f"{row['attempts']:8.1f} {row['length']:6.2f} "]
    for bound in ERRORS:
        at = row["reached"].get(f"{bound:.0e}")
        cells.append(f"{at['cpu_seconds']:.2f}/{at['wall_seconds']:.2f}".rjust(11) if at else f"{'-':>11}")
    return " ".join(cells)


def main(arguments):
    jax.config.update("jax_enable_x64", not arguments.single)
    record = provenance(f"python tests/benchmarks/damping.py {shlex.join(sys.argv[1:])}".strip()) | {"rows": []}
    print(f"{record['precision']}; times are CPU/wall seconds to an error\n{heading()}", flush=True)
    for problem in arguments.problems:
        case = PROBLEMS[problem]()
        for rule in arguments.rules:
            for row in run(case, RULES[rule], arguments.seconds, arguments.seeds):
                record["rows"].append({"problem": problem, "rule": rule} | row)
                print(line_of(record["rows"][-1]), flush=True)
                if arguments.out:
                    Path(arguments.out).write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problems", metavar="PROBLEM", nargs="*", help=f"{', '.join(PROBLEMS)}; default: all")
    parser.add_argument("--rules", metavar="RULE", nargs="+", choices=RULES, default=list(RULES), help=", ".join(RULES))
    parser.add_argument("--seconds", type=float, default=10, help="CPU seconds of each run (10)")
    parser.add_argument("--seeds", type=int, default=1, help="number of random seeds (1)")
    parser.add_argument("--single", action="store_true", help="single instead of double precision")
    parser.add_argument("--out", metavar="FILE", help="where to write the record, as JSON")
    arguments = parser.parse_args()
    arguments.problems = arguments.problems or list(PROBLEMS)
    if unknown := set(arguments.problems) - set(PROBLEMS):
        parser.error(f"unknown problems: {', '.join(sorted(unknown))}")
    main(arguments)
