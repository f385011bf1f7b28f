"""Redact secrets from what is printed and stored.

A password may contain any character, including those that a URL should percent-encode. So anything
that could be part of a password is redacted, rather too much than too little.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

MASK = "***"

# `scheme://`, also with a missing or an extra slash, and schemes of databases without slashes.
_SCHEME = re.compile(
    r"(?P<file>\b(?:sqlite|sqlite\+pysqlite|file):///+)|[a-z][a-z0-9+.-]*:/+"
    r"|postgres(?:ql)?(?:\+\w+)?:",
    re.I,
)
# `HOST:PORT,HOST:PORT`, perhaps with a path or options: these digits are not a password.
_HOST = r"(?:\[[0-9A-Fa-f:.%]*\]|[^\s/?#:@,\[\]]*)"
_HOSTS_WITH_PORTS = re.compile(rf"{_HOST}:\d{{1,5}}(?:,{_HOST}:\d{{1,5}})*(?=[/?,;\s'\"`)]|$)")
_HOST_ALONE = re.compile(rf"{_HOST}(?=[/?]|$)")
# `password=...` in a URL's options or in a connection string, quoted or not.
_SETTING = re.compile(r"(\w*(?:password|passwd|secret)\s*=\s*)('[^']*'|[^\s&#'\"]+)", re.I)
_SETTING_TO_THE_END = re.compile(
    # In a URL's options a space after the sign belongs to the password.
    r"([?&]\w*(?:password|passwd|secret)=|\w*(?:password|passwd|secret)\s*=\s*).+",
    re.I | re.DOTALL,
)
# In a sentence: the @ of a URL, and the end of a URL without one.
_AT_IN_MESSAGE = re.compile(r"(?<=\S)@(?=[\w\[])")
_END_IN_MESSAGE = re.compile(r"[\s'\"]")
_MIN_PART = 3  # letters; shorter parts of a password would be found everywhere


def redacted(text: str) -> str:
    """Redact possible passwords in a URL, or in a command's argument that contains one.

    The URL may be malformed, since messages also show refused URLs.

    Args:
        text: the whole argument; a possible password may reach to its end.
    """
    return _SETTING_TO_THE_END.sub(rf"\g<1>{MASK}", _without_userinfo(text, whole=True))


def redacted_message(message: str, arguments: Iterable[str] = ()) -> str:
    """Redact possible passwords in a sentence.

    Args:
        message: the sentence.
        arguments: the command line's arguments. A password in one of them is redacted wherever the
            sentence repeats it or a word of it, since a list may have been split.
    """
    for argument in arguments:
        shown = redacted(argument)
        if shown == argument:
            continue
        for text in (argument, argument.partition("=")[2]):
            if text:
                message = message.replace(repr(text)[1:-1], redacted(text))
                message = message.replace(text, redacted(text))
        for part in _secret_parts(argument, shown):
            message = message.replace(part, MASK)
    return _SETTING.sub(rf"\g<1>{MASK}", _without_userinfo(message, whole=False))


def _secret_parts(argument: str, shown: str) -> list[str]:
    """What `redacted` removed from an argument, and its words, the longest first."""
    head, _, tail = shown.partition(MASK)
    secret = argument[len(head) : len(argument) - len(tail)]
    parts = {secret, repr(secret)[1:-1], *re.split(r"[\W_]+", secret)}
    return sorted((p for p in parts if len(p) >= _MIN_PART), key=len, reverse=True)


def _without_userinfo(text: str, *, whole: bool) -> str:
    """Mask `user:password` in every URL, with or without a host after it.

    Args:
        text: a URL, an argument, or a sentence.
        whole: whether a password without a host may reach to the end of the text.
    """
    shown, rest = "", text
    while match := _SCHEME.search(rest):
        shown += rest[: match.end()]
        rest = rest[match.end() :]
        if match["file"]:
            continue
        at = rest.rfind("@") if whole else _last_at(rest)
        colon = _password_colon(rest, at)
        if colon is None:
            continue
        shown += rest[: colon + 1] + MASK
        if at > colon:
            rest = rest[at:]
            continue
        end = None if whole else _END_IN_MESSAGE.search(rest, colon)
        rest = rest[end.start() :] if end is not None else ""
    return shown + rest


def _last_at(rest: str) -> int:
    """The @ before a URL's host in the text after its scheme, or -1 if there is none."""
    if done := re.match(rf"[^\s:]*:{re.escape(MASK)}@", rest):
        return done.end() - 1
    return max((match.start() for match in _AT_IN_MESSAGE.finditer(rest)), default=-1)


def _password_colon(rest: str, at: int) -> int | None:
    """Find the colon before a possible password in a URL, or None.

    Args:
        rest: the text after the scheme.
        at: the last @ in it, or -1.
    """
    begin = 0
    if rest.startswith("[") and at < 0:
        begin = rest.find("]") + 1
    colon = rest.find(":", begin)
    if 0 <= colon < at:
        return colon
    hosts = rest[at + 1 :]
    if colon < 0 or _HOSTS_WITH_PORTS.match(hosts) or _HOST_ALONE.match(hosts):
        return None
    return rest.find(":", at + 1) if ":" in hosts else None
