"""What every test gets: hypothesis profiles, and a watch for asyncio tasks that outlive their test."""

import asyncio
import inspect
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import settings

# Deadlines measure the machine, not the code: the simulator's own tests bound what may be slow.
settings.register_profile("dev", max_examples=25, deadline=None)
settings.register_profile("ci", max_examples=100, deadline=None, derandomize=True, print_blob=True)
settings.register_profile("soak", max_examples=5_000, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))

# Turns of the loop that a task cancelled at the very end of a test gets to finish in: a response that is left in the
# middle takes some twenty, for its generators are closed one within the other.
_LAST_TURNS = 100


@pytest.fixture(autouse=True)
def _tasks_end_with_their_test(request: pytest.FixtureRequest) -> None:
    """Watch the asynchronous tests only: a loop for each other test would cost more than it."""
    if _is_asynchronous(request.node):
        # A fixture sees the tasks of its own loop alone, so it has to run in the one that the test runs in.
        marker = request.node.get_closest_marker("asyncio")
        scope = "function" if marker is None else marker.kwargs.get("loop_scope", "function")
        request.getfixturevalue("_watched_loop" if scope == "function" else "_watched_module_loop")


@pytest.fixture
async def _watched_loop() -> AsyncIterator[None]:
    async with _no_task_left():
        yield


@pytest_asyncio.fixture(loop_scope="module")
async def _watched_module_loop() -> AsyncIterator[None]:
    async with _no_task_left():
        yield


@asynccontextmanager
async def _no_task_left() -> AsyncIterator[None]:
    """Fail the test that leaves a task running.

    It is set up before the test's other fixtures, but after those of the module, and torn down after the former: tasks
    that another fixture ends are gone by then, and those of a system that a module's tests share were there before.
    """
    before = asyncio.all_tasks()
    yield
    leaked = _beside(before)
    for _ in range(_LAST_TURNS):
        if not leaked:
            break
        await asyncio.sleep(0)
        leaked = _beside(before)
    names = sorted(f"{task.get_name()} in {task.get_coro()}" for task in leaked)
    for task in leaked:
        task.cancel()
    await asyncio.gather(*leaked, return_exceptions=True)
    if leaked:
        pytest.fail("leaked tasks: " + "; ".join(names), pytrace=False)


def _beside(known: set[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
    """Return the tasks that run beside the known ones and this one."""
    return asyncio.all_tasks() - known - {asyncio.current_task()}


def _is_asynchronous(item: pytest.Item) -> bool:
    """Tell whether the test is a coroutine, also under hypothesis' wrapper."""
    function = getattr(item, "obj", None)
    inner = getattr(getattr(function, "hypothesis", None), "inner_test", function)
    return inspect.iscoroutinefunction(inner)
