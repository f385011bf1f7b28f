"""No part of a password is shown or stored, whatever characters it has."""

import string
import sys
from itertools import product
from unittest import mock

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from sharedattn.errors import InputError
from sharedattn.results.artifacts.blobs import BlobStore
from sharedattn.results.artifacts.blobs import shown_url as shown_files
from sharedattn.results.database.engine import parse_url, shown_url
from sharedattn.results.redaction import redacted, redacted_message
from sharedattn.search.provenance import provenance

PRINTABLE = "".join(c for c in string.printable if c.isprintable()) + "äß²€"
PASSWORDS = st.text(PRINTABLE, min_size=1, max_size=24)
SCHEMES = st.sampled_from(["postgresql", "postgresql+psycopg", "postgres", "s3", "sftp", "mysql"])


def odd(test):
    for password in (
        "a/b",
        "/",
        "7/secret",
        "12345",
        "x@y/z:w",
        "a b",
        "'q\"",
        "#?",
        "[::1]",
        "%2F",
    ):
        test = example(scheme="postgresql", password=password)(test)
    return test


@odd
@given(scheme=SCHEMES, password=PASSWORDS)
def test_nothing_of_a_password_before_a_host_is_shown(scheme, password) -> None:
    url = f"{scheme}://me:{password}@host/db"
    shown = f"{scheme}://me:***@host/db"
    assert redacted(url) == shown
    assert redacted(shown) == shown
    assert redacted(f"--storage={url}") == f"--storage={shown}"
    said = redacted_message(f"got {url!r}; see there", ["search", url])
    assert said.replace('"', "'") == f"got {shown!r}; see there"


@odd
@given(scheme=SCHEMES, password=PASSWORDS)
def test_nothing_of_a_password_without_a_host_is_shown(scheme, password) -> None:
    # What looks like HOST:PORT, and is read as that.
    port = password.partition("/")[0].partition("?")[0].partition(",")[0].partition(";")[0]
    port = port.rstrip(" '\"`)") or port
    assume(not (port[:5].isdecimal() and port.isascii()) or "@" in password)
    url = f"{scheme}://me:{password}"
    shown = redacted(url)
    if "@" in password:
        # What follows the last @ may as well be the host.
        assert shown == f"{scheme}://me:***@{password.rpartition('@')[2]}"
    else:
        assert shown == f"{scheme}://me:***"
    assert redacted(shown) == shown


@given(password=PASSWORDS)
def test_nothing_of_a_password_among_options_is_shown(password) -> None:
    url = f"postgresql://host/db?user=me&password={password}"
    assume("@" not in password)
    assert redacted(url) == "postgresql://host/db?user=me&password=***"


@given(password=PASSWORDS)
def test_what_is_opened_is_shown_without_its_password(password) -> None:
    secret = f"{password}-hunter2"
    try:
        shown = shown_url(parse_url(f"postgresql://me:{secret}@host/db"))
    except InputError as error:
        shown = str(error)
    assert "hunter2" not in shown
    for protocol in ("s3", "sftp", "memory"):
        url = f"{protocol}://me:{secret}@host/folder"
        try:
            blobs = BlobStore(url)
        except InputError as error:
            assert "hunter2" not in str(error)
        else:
            assert "hunter2" not in blobs.shown() + repr(blobs) + shown_files(url)


@given(password=PASSWORDS)
def test_what_is_stored_of_a_command_has_no_password(password) -> None:
    url = f"postgresql://me:{password}@host/db"
    with mock.patch.object(
        sys, "argv", ["sharedattn", "search", "--storage", url, f"--out={url}"]
    ):
        assert provenance()["command"] == (
            "sharedattn search --storage postgresql://me:***@host/db "
            "--out=postgresql://me:***@host/db"
        )


SECRETS = [
    "hun/ter2",
    "hun#ter2",
    "hun?ter2",
    "hun@ter2",
    "hun:ter2",
    "hun ter2",
    "hun'ter2",
    'hun"ter2',
    "hun\\ter2",
    "hun,ter2",
    "hun=ter2",
    "hun%ter2",
    "hun[ter2",
    "7/hunter2",
]


HOSTS = ["@host/db", "@nowhere.invalid/db", "@host:port/db", ""]


@pytest.mark.parametrize(
    "arguments",
    [
        ("front", "--storage", "{}"),
        ("front", "--storage={}"),
        ("search", "{}"),
        ("search", "--objectives", "{}"),
        ("search", "--rungs", "{}"),
        ("search", "--resources-per-trial", "{}"),
        ("search", "--device", "{}"),
        ("search", "--table", "{}"),
        ("search", "--study", "{}"),
        ("verify", "{}"),
        ("front", "a", "{}"),
        ("{}",),
        ("cost", "{}"),
        ("search", "--weights-dir", "{}"),
    ],
)
def test_no_message_shows_a_part(lab, arguments) -> None:
    for secret, host in product(SECRETS, HOSTS):
        # Read as a host, as it may well be; or tries to reach one.
        if not host and secret in ("7/hunter2", "hun@ter2"):
            continue
        if "nowhere" in host and "--storage" in " ".join(arguments):
            continue
        url = f"postgresql://me:{secret}{host}"
        code, out, err = lab.run(*(argument.format(url) for argument in arguments))
        assert code == 2
        for part in ("hun", "ter2"):
            assert part not in out + err
