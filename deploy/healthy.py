"""Tells a container's runtime whether the program in it is well: exit code 0, or 1.

Usage: healthy.py PORT [PATH]: the admin port, and what to ask of it (/readyz by default).
"""

import sys
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException

SECONDS = 5.0
OK = 200


def is_well(port: int, path: str = "/readyz") -> bool:
    """Whether the program's admin site answers 200."""
    connection = HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    with suppress(OSError, HTTPException), closing(connection):
        connection.request("GET", path)
        return connection.getresponse().status == OK
    return False


if __name__ == "__main__":
    sys.exit(0 if is_well(int(sys.argv[1]), *sys.argv[2:3]) else 1)
