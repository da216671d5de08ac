"""A fingerprint of conf/, which tells whether params.yaml was composed from what is there now."""

import hashlib
from pathlib import Path


def conf_digest(conf: Path) -> str:
    """SHA-256 over the path and text of every conf/**/*.yaml, in path order, as 64 hex digits.

    Line ends are normalised, so that a checkout on another system has the same digest.
    """
    digest = hashlib.sha256()
    for path in sorted(conf.rglob("*.yaml"), key=lambda file: file.relative_to(conf).as_posix()):
        name = path.relative_to(conf).as_posix().encode()
        text = path.read_bytes().replace(b"\r\n", b"\n")
        digest.update(b"%d %b %d %b" % (len(name), name, len(text), text))  # lengths: no two trees run together
    return digest.hexdigest()
