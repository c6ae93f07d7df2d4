"""What every test gets: hypothesis profiles, and a watch for asyncio tasks that outlive their test."""

import asyncio
import inspect
import os
from collections.abc import AsyncIterator

import pytest
from hypothesis import settings

# Deadlines measure the machine, not the code: the simulator's own tests bound what may be slow.
settings.register_profile("dev", max_examples=25, deadline=None)
settings.register_profile("ci", max_examples=200, deadline=None, derandomize=True, print_blob=True)
settings.register_profile("soak", max_examples=5_000, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))

# Turns of the loop that a task cancelled at the very end of a test gets to finish in.
_LAST_TURNS = 5


@pytest.fixture(autouse=True)
def _tasks_end_with_their_test(request: pytest.FixtureRequest) -> None:
    """Watch the asynchronous tests only: a loop for each other test would cost more than it."""
    if _is_asynchronous(request.node):
        request.getfixturevalue("_watched_loop")


@pytest.fixture
async def _watched_loop() -> AsyncIterator[None]:
    """Fail the test that leaves a task running.

    It is set up first and so torn down last: tasks that another fixture ends are gone by then.
    """
    before = asyncio.all_tasks()
    yield
    for _ in range(_LAST_TURNS):
        await asyncio.sleep(0)
    leaked = asyncio.all_tasks() - before - {asyncio.current_task()}
    names = sorted(f"{task.get_name()} in {task.get_coro()}" for task in leaked)
    for task in leaked:
        task.cancel()
    await asyncio.gather(*leaked, return_exceptions=True)
    if leaked:
        pytest.fail("leaked tasks: " + "; ".join(names), pytrace=False)


def _is_asynchronous(item: pytest.Item) -> bool:
    """Tell whether the test is a coroutine, also under hypothesis' wrapper."""
    function = getattr(item, "obj", None)
    inner = getattr(getattr(function, "hypothesis", None), "inner_test", function)
    return inspect.iscoroutinefunction(inner)
