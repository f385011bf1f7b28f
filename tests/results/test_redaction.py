import pytest

from sharedattn.results.redaction import redacted


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:secret@host:5433/db", "postgresql://me:***@host:5433/db"),
        ("--storage=postgresql://me:secret@host/db", "--storage=postgresql://me:***@host/db"),
        ("postgresql://:secret@host/db", "postgresql://:***@host/db"),
        ("s3://key:secret@bucket/weights", "s3://key:***@bucket/weights"),
        # Characters that should have been written in percent.
        ("postgresql://me:sec@re/t?x#y@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:sec ret@host/db", "postgresql://me:***@host/db"),
        ("postgresql:/me:secret@host/db", "postgresql:/me:***@host/db"),
        # The host was forgotten.
        ("postgresql://me:secret", "postgresql://me:***"),
        ("postgresql://me:s3cret/db", "postgresql://me:***"),
        ("postgresql://me:7secret/db", "postgresql://me:***"),
        (
            "postgresql://host/db?user=me&password=secret",
            "postgresql://host/db?user=me&password=***",
        ),
        ("postgresql://host/db?SSLPassword=secret#x", "postgresql://host/db?SSLPassword=***"),
        ("host=h password = 'sec ret' user=me", "host=h password = ***"),
        ("host=h password=secret user=me", "host=h password=***"),
        (
            "postgresql+psycopg://me:secret@[::1]:5432/db",
            "postgresql+psycopg://me:***@[::1]:5432/db",
        ),
    ],
)
def test_what_may_be_a_password_is_not_shown(text: str, shown: str) -> None:
    assert redacted(text) == shown
    assert redacted(shown) == shown
    assert "secret" not in shown


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:////data/my:own@study.db",
        "postgresql://host:5432/db",
        "postgresql://me@host/db?sslmode=require",
        "postgresql://[::1]:5432/db",
        "postgresql://a:5432,b:5433/db",
        "vit(class_token=False,depth=3)@32: V2L1/cb",
        "macs<1.2G",
        "",
    ],
)
def test_everything_else_is_shown_as_it_is(text: str) -> None:
    assert redacted(text) == text
