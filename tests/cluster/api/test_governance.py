"""What is in force, by the API of real regions: constitution, halts, policies; who may change them and who not."""

from __future__ import annotations

from tests.cluster.api.conftest import Api

from acgs2.local.loopback import loopback


def test_regions_are_founded_on_one_constitution_and_say_so(api: Api) -> None:
    told = [loopback().get(f"{url}/health/governing") for url in api.urls.values()]
    assert [each.status_code for each in told] == [200, 200, 200]
    assert len({each.json()["constitution"]["digest"] for each in told}) == 1
