"""What kubelet says to containerd to pull an image: `PullImage` and `RemoveImage` of the CRI's ImageService.

Run in a machine by Debian's Python, which has gRPC; nothing of ours is imported. The few messages are written out by
hand (protocol buffers: field number and length before each text; CRI v1, api.proto):

    python3 cri.py SOCKET pull IMAGE [USER PASSWORD]
    python3 cri.py SOCKET remove IMAGE
"""

import sys

import grpc  # type: ignore[import-not-found, import-untyped, unused-ignore]  # not in our environment

PATIENCE = 600  # seconds
TEXT = 2  # wire type: length before content


def number(value: int) -> bytes:
    """A varint."""
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + number(rest) if rest else bytes([low])


def field(index: int, content: bytes) -> bytes:
    return number(index << 3 | TEXT) + number(len(content)) + content


def main(socket: str, what: str, image: str, *login: str) -> int:
    """0 if containerd has done it; else what it said, on standard error."""
    request = field(1, field(1, image.encode()))
    if login:
        user, password = login
        request += field(2, field(1, user.encode()) + field(2, password.encode()))
    method = {"pull": "PullImage", "remove": "RemoveImage"}[what]
    options = [("grpc.default_authority", "localhost")]  # containerd refuses the path of a socket
    with grpc.insecure_channel(f"unix://{socket}", options=options) as channel:
        call = channel.unary_unary(f"/runtime.v1.ImageService/{method}")
        try:
            call(request, timeout=PATIENCE)
        except grpc.RpcError as refusal:
            print(refusal.code(), refusal.details(), file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
