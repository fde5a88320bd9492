"""Whether an address can be that of a Triton's HTTP service, and what stands there instead."""

from __future__ import annotations

import re

from jettison.core.errors import ExternalError, InputError

_HTTP2_SETTINGS = b"\x04"
"""The type of the frame with which a gRPC server begins. Source: RFC 9113, section 6.5."""


def check_address(url: str) -> str:
    """The address, if it is HOST:PORT.

    Raises:
        InputError: It has a scheme, a path or no port.
    """
    scheme, mark, rest = url.rpartition("://")
    plain = (rest if mark else url).split("/")[0]
    if re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^\s:/\[\]@]+):\d{1,5}", url):
        return url
    fix = f"Give {plain}" if mark or plain != url else "Give it as 127.0.0.1:8000"
    found = f"the scheme {scheme}:// before it" if mark else repr(url)
    raise InputError(f"server address {url}", detail=f"expected HOST:PORT, found {found}", fix=fix)


def no_http(url: str, line: str) -> ExternalError:
    """What to say of a server whose first line is none of HTTP/1.

    Args:
        url: Its address.
        line: What came, one character a byte.
    """
    is_grpc = line.encode("latin-1", errors="replace")[3:4] == _HTTP2_SETTINGS
    found = "gRPC" if is_grpc else "something else"
    return ExternalError(
        f"server {url}",
        detail=f"expected Triton's HTTP service there, found {found}",
        fix="Give the port of HTTP (8000 by default; 8001 is gRPC, 8002 metrics)",
    )
