"""Redact secrets from what is printed and stored.

A password may hold any character: those that a URL should have in percent are often written as
they are. So whatever stands where a password could is redacted as far as it could reach, rather
too much than too little.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

MASK = "***"

# `scheme://`, also with a slash too few or too many, and the schemes of databases without one.
_SCHEME = re.compile(
    r"(?P<file>\b(?:sqlite|sqlite\+pysqlite|file):///+)|[a-z][a-z0-9+.-]*:/+"
    r"|postgres(?:ql)?(?:\+\w+)?:",
    re.I,
)
# `HOST:PORT,HOST:PORT`, with a path or options behind it or not: these digits are no password.
_HOST = r"(?:\[[0-9A-Fa-f:.%]*\]|[^\s/?#:@,\[\]]*)"
_HOSTS_WITH_PORTS = re.compile(rf"{_HOST}:\d{{1,5}}(?:,{_HOST}:\d{{1,5}})*(?=[/?,;\s'\"`)]|$)")
_HOST_ALONE = re.compile(rf"{_HOST}(?=[/?]|$)")
# `password=...` in a URL's options or in a connection string, quoted or not.
_SETTING = re.compile(r"(\w*(?:password|passwd|secret)\s*=\s*)('[^']*'|[^\s&#'\"]+)", re.I)
_SETTING_TO_THE_END = re.compile(
    # In a URL's options a space after the sign is the password's own.
    r"([?&]\w*(?:password|passwd|secret)=|\w*(?:password|passwd|secret)\s*=\s*).+",
    re.I | re.DOTALL,
)
# In a sentence: the @ of a URL, and where a URL without one ends.
_AT_IN_MESSAGE = re.compile(r"(?<=\S)@(?=[\w\[])")
_END_IN_MESSAGE = re.compile(r"[\s'\"]")
_MIN_PART = 3  # letters; shorter parts of a password would be found everywhere


def redacted(text: str) -> str:
    """A URL, or a command's argument with one in it, without what may be a password.

    It need not be well-formed: a URL that is refused is shown in a message too.

    Args:
        text: the whole argument; what may be a password in it may reach to its end.
    """
    return _SETTING_TO_THE_END.sub(rf"\g<1>{MASK}", _without_userinfo(text, whole=True))


def redacted_message(message: str, arguments: Iterable[str] = ()) -> str:
    """A sentence without what may be a password in it.

    Args:
        message: the sentence.
        arguments: of the command line. A password that one of them holds is redacted wherever the
            sentence repeats it or a word of it, since it may have been taken apart as a list.
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
    """What `redacted` took out of an argument, and the words of it, the longest first."""
    head, _, tail = shown.partition(MASK)
    secret = argument[len(head) : len(argument) - len(tail)]
    parts = {secret, repr(secret)[1:-1], *re.split(r"[\W_]+", secret)}
    return sorted((p for p in parts if len(p) >= _MIN_PART), key=len, reverse=True)


def _without_userinfo(text: str, *, whole: bool) -> str:
    """Mask `user:password` of every URL, with a host behind it or not.

    Args:
        text: a URL or an argument, or a sentence.
        whole: whether a password without a host behind it may reach to the end of the text.
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
    """The @ before a URL's host in what follows its scheme in a sentence; -1: there is none."""
    if done := re.match(rf"[^\s:]*:{re.escape(MASK)}@", rest):
        return done.end() - 1
    return max((match.start() for match in _AT_IN_MESSAGE.finditer(rest)), default=-1)


def _password_colon(rest: str, at: int) -> int | None:
    """Find the colon before a possible password in a URL behind its scheme, or None.

    Args:
        rest: what follows the scheme.
        at: the last @ in it; -1: there is none.
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
