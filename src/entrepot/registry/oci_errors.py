"""Errors as registry clients expect them: the JSON body and the codes of the OCI distribution specification.

Status codes are not decided here: the same code goes out under several.
"""

import json
from typing import Final

# distribution-spec, "Error Codes".
BLOB_UNKNOWN: Final = "BLOB_UNKNOWN"
BLOB_UPLOAD_INVALID: Final = "BLOB_UPLOAD_INVALID"
BLOB_UPLOAD_UNKNOWN: Final = "BLOB_UPLOAD_UNKNOWN"
DIGEST_INVALID: Final = "DIGEST_INVALID"
MANIFEST_BLOB_UNKNOWN: Final = "MANIFEST_BLOB_UNKNOWN"
MANIFEST_INVALID: Final = "MANIFEST_INVALID"
MANIFEST_UNKNOWN: Final = "MANIFEST_UNKNOWN"
NAME_INVALID: Final = "NAME_INVALID"
NAME_UNKNOWN: Final = "NAME_UNKNOWN"
SIZE_INVALID: Final = "SIZE_INVALID"
UNAUTHORIZED: Final = "UNAUTHORIZED"
DENIED: Final = "DENIED"
UNSUPPORTED: Final = "UNSUPPORTED"
TOOMANYREQUESTS: Final = "TOOMANYREQUESTS"
# Not in the specification, but in distribution, so that clients know them.
UNKNOWN: Final = "UNKNOWN"
UNAVAILABLE: Final = "UNAVAILABLE"
RANGE_INVALID: Final = "RANGE_INVALID"

CONTENT_TYPE: Final = "application/json"


def error_body(code: str, message: str, detail: object = None) -> bytes:
    """One error as JSON; `detail` is any value, what JSON cannot say goes out as its text."""
    entry: dict[str, object] = {"code": code, "message": message}
    if detail is not None:
        entry["detail"] = detail
    return json.dumps({"errors": [entry]}, default=str, separators=(",", ":")).encode()
