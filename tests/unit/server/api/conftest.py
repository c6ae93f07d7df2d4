from collections.abc import AsyncIterator

import pytest

from tests.unit.server.api_harness import Api, serving


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with serving() as found:
        yield found
