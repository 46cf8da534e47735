"""Recursion without Python's limit on its depth: deep networks have graphs with thousands of equations in a row."""

from collections.abc import Generator
from typing import Any


def run(generator: Generator) -> Any:
    """Run a generator that yields further generators in place of recursive calls and is sent their results."""
    stack, result = [generator], None
    while stack:
        try:
            called = stack[-1].send(result)
        except StopIteration as stop:
            stack.pop()
            result = stop.value
        else:
            stack.append(called)
            result = None
    return result
