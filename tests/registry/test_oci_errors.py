"""Errors as the distribution specification writes them."""

import json
from pathlib import Path

from entrepot.registry import oci_errors


def test_error_body() -> None:
    body = oci_errors.error_body(oci_errors.MANIFEST_UNKNOWN, 'no "tag"')
    assert json.loads(body) == {"errors": [{"code": "MANIFEST_UNKNOWN", "message": 'no "tag"'}]}


def test_detail_is_there_only_if_given() -> None:
    body = oci_errors.error_body(oci_errors.DENIED, "no", {"repository": "a/b"})
    assert json.loads(body)["errors"][0]["detail"] == {"repository": "a/b"}


def test_a_detail_json_cannot_say_goes_out_as_text() -> None:
    body = oci_errors.error_body(oci_errors.UNKNOWN, "no", Path("a/b"))
    assert json.loads(body)["errors"][0]["detail"] == "a/b"


def test_a_code_is_its_own_name() -> None:
    codes = {name: value for name, value in vars(oci_errors).items() if name.isupper() and name != "CONTENT_TYPE"}
    assert len(codes) >= 14
    assert all(name == value for name, value in codes.items())
