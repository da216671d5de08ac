"""Answers that were paid for, one file each: a killed run loses at most the requests under way."""

import hashlib
import json
import sys
from pathlib import Path
from secrets import token_hex

from tuneline.data.records import Json
from tuneline.errors import DataError
from tuneline.flushing import flush
from tuneline.teacher.request import Reply, Request


class ReplyCache:
    """A folder of answers by the digest of their request; used by several threads, each with its own requests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, request: Request) -> Reply | None:
        """The answer; None when there is none. A damaged file is named on stderr and counts as none."""
        path = self._path(request)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}); make the cache's files readable") from None
        reply = _reply(content, request)
        if reply is None:
            print(f"{path}: damaged, so its request is sent again", file=sys.stderr)
        return reply

    def keep(self, request: Request, reply: Reply) -> None:
        """On the disk, whatever happens next, when this returns."""
        path = self._path(request)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, _content(request, reply))
            flush(path.parent)
        except OSError as error:
            raise DataError(f"{path}: cannot be written ({error.strerror}); the cache needs room and rights") from None

    def _path(self, request: Request) -> Path:
        return self.folder / request.sha256[:2] / f"{request.sha256}.json"  # no folder with 100,000 files


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all, beside others who do the same: two experiments of a queue may ask one thing at one time."""
    temporary = path.with_name(f".{path.name}.{token_hex(8)}.partial")
    try:
        temporary.write_bytes(content)
        flush(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _content(request: Request, reply: Reply) -> bytes:
    answer: dict[str, Json] = {
        "text": reply.text,
        "finish_reason": reply.finish_reason,
        "refusal": reply.refusal,
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.completion_tokens,
    }
    whole = {"request": dict(request.body), "reply": answer, "reply_sha256": _checksum(request, answer)}
    return json.dumps(whole, sort_keys=True, indent=1).encode("ascii") + b"\n"


def _reply(content: bytes, request: Request) -> Reply | None:
    """The answer of a cache file, when every byte of it is as it was written for this request."""
    try:
        whole = json.loads(content)
    except (ValueError, RecursionError):
        return None
    match whole:
        case {"reply": dict(answer), "reply_sha256": checksum} if checksum == _checksum(request, answer):
            return _known(answer)
    return None


def _known(answer: dict[str, Json]) -> Reply | None:
    match answer:
        case {
            "text": str(text),
            "finish_reason": None | str() as finish_reason,
            "refusal": None | str() as refusal,
            "prompt_tokens": None | int() as prompt_tokens,
            "completion_tokens": None | int() as completion_tokens,
        }:
            return Reply(text, finish_reason, refusal, prompt_tokens, completion_tokens)
    return None


def _checksum(request: Request, answer: dict[str, Json]) -> str:
    """Of answer and request, so that a file under another name is no answer either."""
    return hashlib.sha256(json.dumps([request.sha256, answer], sort_keys=True).encode("ascii")).hexdigest()
