"""Answers on the disk: found again, never mixed up, never trusted when damaged."""

import errno
import os
from pathlib import Path

import pytest

from tuneline.config.schema import EndpointConfig, TeacherJobConfig
from tuneline.errors import DataError
from tuneline.flushing import flush
from tuneline.teacher.cache import ReplyCache
from tuneline.teacher.request import Reply, Request, make_request

REPLY = Reply("grün \ud800\u2028 x", "stop", None, 10, 5)


@pytest.fixture
def request_(config: EndpointConfig, rewrite: TeacherJobConfig) -> Request:
    return make_request("Hello", config, rewrite, 42)


@pytest.fixture
def cache(tmp_path: Path) -> ReplyCache:
    return ReplyCache(tmp_path / "cache")


@pytest.mark.parametrize("reply", [REPLY, Reply("", None, "400: too long", 0, 0), Reply("x", "stop", None, None, None)])
def test_an_answer_is_found_as_it_was(reply: Reply, cache: ReplyCache, request_: Request) -> None:
    assert cache.find(request_) is None
    assert not cache.folder.exists()
    cache.keep(request_, reply)
    assert ReplyCache(cache.folder).find(request_) == reply


@pytest.mark.parametrize(
    "changes",
    [
        {"base_url": "http://127.0.0.1:9/v1"},
        {"model": "another"},
        {"limit_parameter": "max_completion_tokens"},
        {"sends_seed": False},
    ],
)
def test_another_endpoint_is_another_request(
    changes: dict[str, object], config: EndpointConfig, rewrite: TeacherJobConfig, request_: Request
) -> None:
    assert make_request("Hello", config.model_copy(update=changes), rewrite, 42).sha256 != request_.sha256


@pytest.mark.parametrize("changes", [{"max_tokens": 21}, {"temperature": 0.6}, {"temperature": None}])
def test_other_sampling_is_another_request(
    changes: dict[str, object], config: EndpointConfig, rewrite: TeacherJobConfig, request_: Request
) -> None:
    assert make_request("Hello", config, rewrite.model_copy(update=changes), 42).sha256 != request_.sha256


def test_another_prompt_or_seed_is_another_request(
    config: EndpointConfig, rewrite: TeacherJobConfig, request_: Request
) -> None:
    digests = {
        make_request(prompt, config, rewrite, seed).sha256 for prompt in ("Hello", "Hello.") for seed in (42, 43)
    }
    assert len(digests) == 4
    assert request_.sha256 in digests


def test_how_it_is_asked_does_not_make_another_request(
    config: EndpointConfig, rewrite: TeacherJobConfig, request_: Request
) -> None:
    patient = {"timeout_s": 9.0, "max_retries": 9, "concurrency": 1, "max_total_tokens": 9, "api_key_env": "KEY"}
    slashed = {"base_url": f"{config.base_url}/"}
    renamed = rewrite.model_copy(update={"name": "another"})
    assert make_request("Hello", config.model_copy(update=patient | slashed), renamed, 42).sha256 == request_.sha256


def test_any_damaged_byte_is_noticed_and_named(
    cache: ReplyCache, request_: Request, capsys: pytest.CaptureFixture[str]
) -> None:
    cache.keep(request_, REPLY)
    (path,) = cache.folder.rglob("*.json")
    whole = path.read_bytes()
    start = whole.index(b'"reply"')
    damaged = [whole[:place] + b"7" + whole[place + 1 :] for place in range(start, len(whole) - 5, 3)]
    for content in [b"", b"{}", b"null", whole[: len(whole) // 2], b"\xff" * 40, b"[" * 100_000, *damaged]:
        path.write_bytes(content)
        # a changed blank between values changes nothing
        assert cache.find(request_) in (None, REPLY)
        if cache.find(request_) is None:
            assert f"{path}: damaged, so its request is sent again" in capsys.readouterr().err
    path.write_bytes(whole.replace(b"gr", b"Gr"))
    assert cache.find(request_) is None
    cache.keep(request_, REPLY)
    assert path.read_bytes() == whole


def test_a_file_under_another_requests_name_is_no_answer(
    cache: ReplyCache, request_: Request, config: EndpointConfig, rewrite: TeacherJobConfig
) -> None:
    cache.keep(request_, REPLY)
    other = make_request("Bye", config, rewrite, 42)
    (path,) = cache.folder.rglob("*.json")
    moved = cache.folder / other.sha256[:2] / f"{other.sha256}.json"
    moved.parent.mkdir(exist_ok=True)
    path.rename(moved)
    assert cache.find(other) is None


def test_two_experiments_that_ask_the_same_do_not_disturb_each_other(
    cache: ReplyCache, request_: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile(path: Path) -> None:
        monkeypatch.undo()
        ReplyCache(cache.folder).keep(request_, REPLY)
        flush(path)

    monkeypatch.setattr("tuneline.teacher.cache.flush", meanwhile)  # between the writing and the renaming
    cache.keep(request_, REPLY)
    assert cache.find(request_) == REPLY
    assert [path.name for path in cache.folder.rglob("*") if path.is_file()] == [f"{request_.sha256}.json"]


def test_a_write_that_fails_leaves_nothing_behind(
    cache: ReplyCache, request_: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tuneline.teacher.cache.flush", full)
    with pytest.raises(DataError, match=r"cannot be written \(No space left on device\); "):
        cache.keep(request_, REPLY)
    assert not [path for path in cache.folder.rglob("*") if path.is_file()]


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, request_: Request) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DataError, match=r"cannot be (read|written) \(.*\); "):
        ReplyCache(tmp_path / "cache").keep(request_, REPLY)
