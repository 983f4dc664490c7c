"""What the proxies answer themselves: problem documents (RFC 9457), as all other errors of ours."""

from __future__ import annotations

import json

from acgs2.drivers.envoy import api
from acgs2.errors import PROBLEM_TYPES

__all__ = ["NOTHING_STORED", "PROBLEM", "direct", "local_replies", "set_header"]

PROBLEM = "application/problem+json"
#: On a 503 that says that nothing was stored.
NOTHING_STORED = "x-acgs2-nothing-stored"

#: Which of Envoy's response flags, the status, the problem, what it says, and what to do.
_FLAGS: tuple[tuple[tuple[str, ...], int, str, str, str], ...] = (
    (
        ("UH", "NC"),
        503,
        "no-lawful-target",
        "No region that may take this is well.",
        "Try again later; nothing was stored.",
    ),
    (
        ("UO",),
        503,
        "overloaded",
        "Too much is under way to the region.",
        "Try again in a moment; nothing was stored.",
    ),
    (("UF",), 503, "region-away", "The region cannot be reached.", "Try again; nothing was stored."),
    (
        ("UC", "UR", "LR", "UT"),
        503,
        "outcome-unknown",
        "The region went silent before it answered.",
        "Repeat the request with the same Idempotency-Key.",
    ),
    (("SI", "DT"), 408, "too-slow", "The request took too long to arrive.", "Send it at once."),
    (("NR",), 404, "not-found", "There is nothing here.", "See /openapi.json for what there is."),
    (("DPE",), 400, "bad-request", "This is not a request that HTTP knows.", "Send well-formed HTTP."),
)
#: Statuses that no route answers by itself.
_STATUS: tuple[tuple[int, str, str, str], ...] = (
    (408, "too-slow", "The request took too long to arrive.", "Send it at once."),
    (413, "body-too-large", "The body is too large.", "A record is at most 256 KiB."),
    (426, "upgrade-required", "This version of HTTP is not spoken here.", "Use HTTP/1.1 or HTTP/2."),
    (431, "headers-too-large", "The headers are too large.", "Headers are at most 32 KiB."),
)


def _document(status: int, reference: str, detail: str, hint: str) -> dict[str, object]:
    return {
        "type": PROBLEM_TYPES + reference,
        "title": reference.replace("-", " "),
        "status": status,
        "detail": detail,
        "hint": hint,
    }


def set_header(name: str, value: str) -> api.HeaderValueOption:
    """Return a header that is set, whatever there was."""
    return api.HeaderValueOption(
        header=api.HeaderValue(key=name, value=value),
        append_action="OVERWRITE_IF_EXISTS_OR_ADD",
    )


def _mapper(
    filter_: api.AccessLogFilter, status: int, reference: str, detail: str, hint: str
) -> api.ResponseMapper:
    body = _document(status, reference, detail, hint)
    headers = [set_header("retry-after", "1")] if status == 503 else []
    if status == 503 and reference != "outcome-unknown":
        headers.append(set_header(NOTHING_STORED, "1"))
    return api.ResponseMapper(
        filter=filter_,
        status_code=status,
        body_format_override=api.SubstitutionFormatString(json_format=body, content_type=PROBLEM),
        headers_to_add=headers,
    )


def local_replies(*, edge: bool) -> api.LocalReplyConfig:
    """Return what takes the place of Envoy's own words."""
    found: list[api.ResponseMapper] = []
    for flags, status, reference, detail, hint in _FLAGS:
        by_flag = api.AccessLogFilter(response_flag_filter=api.ResponseFlagFilter(flags=flags))
        if not edge and "UH" in flags:
            # At a gateway there is one region to be away.
            reference, detail = "region-not-serving", "The region's server does not answer."  # noqa: PLW2901
        found.append(_mapper(by_flag, status, reference, detail, hint))
    for status, reference, detail, hint in _STATUS:
        value = api.RuntimeUInt32(default_value=status, runtime_key=f"acgs2.status.{status}")
        equal = api.StatusCodeFilter(comparison=api.ComparisonFilter(op="EQ", value=value))
        by_status = api.AccessLogFilter(status_code_filter=equal)
        found.append(_mapper(by_status, status, reference, detail, hint))
    return api.LocalReplyConfig(mappers=found)


def direct(
    name: str, match: api.RouteMatch, status: int, reference: str, detail: str, hint: str
) -> api.Route:
    """Return a route that answers by itself, before any body is read."""
    body = json.dumps(_document(status, reference, detail, hint))
    headers = [set_header("content-type", PROBLEM)]
    if status == 503:
        headers.append(set_header("retry-after", "1"))
    return api.Route(
        name=name,
        match=match,
        direct_response=api.DirectResponseAction(status=status, body=api.DataSource(inline_string=body)),
        response_headers_to_add=headers,
    )
