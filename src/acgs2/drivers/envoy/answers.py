"""What the proxies answer themselves: problem documents (RFC 9457), as all other errors of ours."""

from __future__ import annotations

import json

from acgs2.drivers.envoy import api, http_api
from acgs2.errors import PROBLEM_TYPES

__all__ = ["BUFFER", "NOTHING_STORED", "PROBLEM", "direct", "local_replies", "malformed", "set_header"]

PROBLEM = "application/problem+json"
#: On a 503 that says that nothing was stored, so that whoever sent it may send it elsewhere. The edge speaks
#: of its last try: an earlier one may have stored what may be done twice.
NOTHING_STORED = "x-acgs2-nothing-stored"
#: The filter that waits for a whole body.
BUFFER = "buffer"

_MALFORMED = ("bad-request", "This is not a request that HTTP knows.", "Send well-formed HTTP.")
#: Which of Envoy's response flags, the status, the problem, what it says, and what to do.
_FLAGS: tuple[tuple[tuple[str, ...], int, str, str, str], ...] = (
    (
        ("UH", "NC"),
        503,
        "no-lawful-target",
        "No region that may take this is well.",
        "Try again later, a write with the same Idempotency-Key.",
    ),
    (
        ("UO",),
        503,
        "overloaded",
        "Too much is under way to the region.",
        "Try again in a moment, a write with the same Idempotency-Key.",
    ),
    (
        ("UF",),
        503,
        "region-away",
        "The region cannot be reached.",
        "Try again, a write with the same Idempotency-Key.",
    ),
    (
        ("UC", "UR", "LR", "UT"),
        503,
        "outcome-unknown",
        "The region went silent before it answered.",
        "Repeat the request with the same Idempotency-Key.",
    ),
    (("SI", "DT"), 408, "too-slow", "The request took too long to arrive.", "Send it at once."),
    (("NR",), 404, "not-found", "There is nothing here.", "See /openapi.json for what there is."),
    (("DPE",), 400, *_MALFORMED),
)
#: What Envoy answers to what it does not pass on, the status that is told instead, and the problem.
_STATUS: tuple[tuple[int, int, str, str, str], ...] = (
    (400, 400, *_MALFORMED),
    # A coding that is not chunked: nothing that the region could mend, so no error of its own.
    (501, 400, *_MALFORMED),
    (403, 403, "upgrade-refused", "The connection stays one of HTTP.", "Leave the header Upgrade out."),
    (408, 408, "too-slow", "The request took too long to arrive.", "Send it at once."),
    (413, 413, "body-too-large", "The body is too large.", "A record is at most 256 KiB."),
    (426, 426, "upgrade-required", "This version of HTTP is not spoken here.", "Use HTTP/1.1 or HTTP/2."),
    (431, 431, "headers-too-large", "The headers are too large.", "At most 100 headers of 32 KiB."),
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
    filter_: http_api.AccessLogFilter, status: int, reference: str, detail: str, hint: str
) -> http_api.ResponseMapper:
    body = _document(status, reference, detail, hint)
    headers = [set_header("retry-after", "1")] if status == 503 else []
    if status == 503 and reference != "outcome-unknown":
        headers.append(set_header(NOTHING_STORED, "1"))
    return http_api.ResponseMapper(
        filter=filter_,
        status_code=status,
        body_format_override=api.SubstitutionFormatString(json_format=body, content_type=PROBLEM),
        headers_to_add=headers,
    )


def local_replies(*, edge: bool) -> http_api.LocalReplyConfig:
    """Return what takes the place of Envoy's own words."""
    found: list[http_api.ResponseMapper] = []
    for flags, status, reference, detail, hint in _FLAGS:
        by_flag = http_api.AccessLogFilter(response_flag_filter=http_api.ResponseFlagFilter(flags=flags))
        if not edge and "UH" in flags:
            # At a gateway there is one region to be away.
            reference, detail = "region-not-serving", "The region's server does not answer."  # noqa: PLW2901
        found.append(_mapper(by_flag, status, reference, detail, hint))
    for given, status, reference, detail, hint in _STATUS:
        value = api.RuntimeUInt32(default_value=given, runtime_key=f"acgs2.status.{given}")
        equal = http_api.StatusCodeFilter(comparison=http_api.ComparisonFilter(op="EQ", value=value))
        by_status = http_api.AccessLogFilter(status_code_filter=equal)
        both = http_api.AccessLogFilter(and_filter=http_api.AndFilter(filters=[by_status, _not_by_a_route()]))
        found.append(_mapper(both, status, reference, detail, hint))
    return http_api.LocalReplyConfig(mappers=found)


def _not_by_a_route() -> http_api.AccessLogFilter:
    """Match what Envoy answers of itself: a route that answers has said it better."""
    expression = http_api.ExpressionFilter(expression="response.code_details != 'direct_response'")
    return http_api.AccessLogFilter(
        extension_filter=api.Extension(
            name="envoy.access_loggers.extension_filters.cel", typed_config=expression
        )
    )


def malformed() -> http_api.Route:
    """Return the route of requests for no host or for several: Envoy passes them on, and others do not."""
    text = api.StringMatcher(safe_regex=api.RegexMatcher(regex="^$|^.*[,@ ].*$"))
    host = http_api.HeaderMatcher(name=":authority", string_match=text)
    return direct("malformed", http_api.RouteMatch(prefix="/", headers=[host]), 400, *_MALFORMED)


def direct(
    name: str, match: http_api.RouteMatch, status: int, reference: str, detail: str, hint: str
) -> http_api.Route:
    """Return a route that answers by itself, before any body is read."""
    body = json.dumps(_document(status, reference, detail, hint))
    headers = [set_header("content-type", PROBLEM)]
    if status == 503:
        headers.append(set_header("retry-after", "1"))
    return http_api.Route(
        name=name,
        match=match,
        direct_response=http_api.DirectResponseAction(status=status, body=api.DataSource(inline_string=body)),
        response_headers_to_add=headers,
        typed_per_filter_config={BUFFER: http_api.BufferPerRoute(disabled=True)},
    )
