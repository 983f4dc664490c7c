"""Whom a token may be shown, and which URLs a client can be given."""

from __future__ import annotations

import pytest

from acgs2.client.places import Trust, base_url
from acgs2.errors import InputError

HOME = "https://api.acgs2.example"
LOOPBACK = "http://127.0.0.1:8000"


@pytest.mark.parametrize(
    ("homes", "domain", "url", "trusted"),
    [
        ((HOME,), None, "https://api.acgs2.example:8443/base", True),
        ((HOME,), None, "https://API.acgs2.example./", True),
        ((HOME,), None, "https://west.acgs2.example", False),
        ((HOME,), "acgs2.example", "https://west.acgs2.example", True),
        ((HOME,), ".ACGS2.example.", "https://api.west.acgs2.example", True),
        ((HOME,), "acgs2.example", "https://acgs2.example", True),
        ((HOME,), "acgs2.example", "https://notacgs2.example", False),
        ((HOME,), "acgs2.example", "https://acgs2.example.thief.example", False),
        ((HOME,), "acgs2.example", "https://west.acgs2.example@thief.example", False),
        ((HOME,), "acgs2.example", "https://thief.example\\@west.acgs2.example", False),
        ((HOME,), "acgs2.example", "https://thief.example#.acgs2.example", False),
        ((HOME,), "acgs2.example", "https://thief.example?.acgs2.example", False),
        ((HOME,), "acgs2.example", "https://thief.example%2f.acgs2.example", False),
        ((HOME,), "acgs2.example", "https://thief\t.example", False),
        ((HOME,), "acgs2.example", "http://west.acgs2.example", False),
        ((HOME,), "acgs2.example", "http://api.acgs2.example", False),
        ((HOME,), "acgs2.example", "ftp://west.acgs2.example", False),
        ((HOME,), "acgs2.example", "https://wést.acgs2.example", False),
        ((HOME,), "acgs2.example", "https://", False),
        ((HOME,), "acgs2.example", "", False),
        ((HOME,), "acgs2.example", "https://[::1", False),
        ((HOME,), "acgs2.example", "https://west.acgs2.example:99999", False),
        ((HOME,), None, LOOPBACK, False),
        ((LOOPBACK,), None, "http://127.0.0.1:9000", True),
        ((LOOPBACK,), None, "http://localhost:9000", True),
        ((LOOPBACK,), None, "http://[::1]:9000", True),
        ((LOOPBACK,), None, "http://127.0.0.1.thief.example", False),
        ((LOOPBACK,), None, "http://10.0.0.1", False),
        ((LOOPBACK, HOME), None, "https://127.0.0.2", False),
    ],
)
def test_a_token_is_shown_to_known_hosts_and_under_the_domain(
    homes: tuple[str, ...], domain: str | None, url: str, trusted: bool
) -> None:
    assert Trust(homes, domain).covers(url) is trusted


@pytest.mark.parametrize(
    "domain", ["example", ".example.", "", "127.0.0.1", "::1", "a b.example", "exämple.de"]
)
def test_a_domain_has_two_parts(domain: str) -> None:
    with pytest.raises(InputError) as caught:
        Trust((HOME,), domain)
    assert caught.value.reference == "domain-invalid"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api",
        "ftp://a.b",
        "https://u:p@a.b",
        "https://a.b?c",
        "https://a.b#c",
        "https://a b",
        "https://a:0",
        "http://",
    ],
)
def test_a_base_url_is_one(url: str) -> None:
    with pytest.raises(InputError) as caught:
        base_url(url)
    assert caught.value.reference == "url-invalid"
    assert base_url("https://a.b:1/c/") == "https://a.b:1/c"
