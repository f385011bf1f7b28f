"""Keeping secrets out of what is printed and stored."""

from __future__ import annotations

import re

MASK = "***"
_PATTERNS = (
    # `scheme://user:password@host`, up to the last @: a password may hold one that should have
    # been written as %40.
    (re.compile(r"(:/{1,2}[^\s/?#:@\[]*:).*@"), rf"\g<1>{MASK}@"),
    # `scheme://user:password` where the host was forgotten; digits are a port.
    (re.compile(r"(:/{1,2}[^\s/?#:@\[]*:)(?!\d*(?:[/?#,\s'\"]|$))[^\s/?#@]+"), rf"\g<1>{MASK}"),
    # `password=...` in a URL's query or in a connection string, quoted or not.
    (
        re.compile(r"(\w*(?:password|passwd|secret)\s*=\s*)('[^']*'|[^\s&#'\"]+)", re.I),
        rf"\g<1>{MASK}",
    ),
)


def masked(text: str) -> str:
    """A URL, or a command's argument with one in it, without what may be a password.

    It need not be well-formed: a URL that is refused is shown in a message too. Rather too much
    is masked than too little.
    """
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text
