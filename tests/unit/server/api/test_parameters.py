import pytest

from tests.unit.server.api_harness import Api, check_problem


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("/v1/groups/lab/graph?epcoh=1", "'epcoh' here; there are: channel, epoch, format, root"),
        ("/v1/groups/lab/graph?format=dot&Root=A", "'Root' here"),
        ("/v1/groups/lab/devices?limit=5", "'limit' here; there are none"),
        ("/healthz?verbose", "'verbose' here; there are none"),
    ],
)
async def test_an_unknown_query_parameter_is_refused_with_those_that_there_are(api: Api, path: str, named: str) -> None:
    path = path if "=" in path else f"{path}=1"
    assert named in check_problem(await api.call("GET", path), 422, "invalid")["detail"]


async def test_the_parameters_that_there_are_and_other_paths_are_left_alone(api: Api) -> None:
    assert (await api.call("GET", "/v1/groups/lab/graph?format=list")).status_code == 200
    check_problem(await api.call("GET", "/nowhere?x=1"), 404, "not-found")
    assert (await api.call("GET", "/openapi.json?x=1")).status_code == 200
