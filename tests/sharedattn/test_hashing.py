import math

import pytest

from sharedattn.hashing import document_key


def test_equal_documents_have_equal_keys() -> None:
    assert document_key({"b": 1, "a": [2]}) == document_key({"a": [2], "b": 1})
    # By sha256sum, of {"a":[2],"b":1} without a line end.
    assert document_key({"b": 1, "a": [2]}).startswith("63c9663d")
    assert document_key({"a": [2], "b": 1.5}) != document_key({"a": [2], "b": 1})


def test_a_document_with_nan_has_no_key() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        document_key({"a": math.nan})
