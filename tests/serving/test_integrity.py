"""What is served is what was packaged: any other byte, file or link is refused by name, in one line."""

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.serving.conftest import GGUF, record, write_package
from tuneline.commands.main import dispatch
from tuneline.errors import ModelError
from tuneline.serving.integrity import RECORD, described, file_digests, record_sha256, verify_model


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def change_a_setting(folder: Path) -> None:
    content = json.loads((folder / RECORD).read_text())
    content["settings"]["export"]["n_ctx"] = 128
    (folder / RECORD).write_text(json.dumps(content))


def replace_by_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def test_an_untouched_folder_is_whole(package: Path) -> None:
    verified = verify_model(package)
    assert verified.gguf == package / GGUF
    assert verified.n_ctx == 64
    assert verified.n_bytes == sum(path.stat().st_size for path in package.rglob("*") if path.is_file())
    assert "4 files" in described(verified)[0]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: flip_a_bit(folder / GGUF), r"tiny\.gguf: changed, sha256"),
        (lambda folder: os.truncate(folder / GGUF, 100), r"tiny\.gguf: truncated, 100 bytes instead of 204"),
        (
            lambda folder: (folder / GGUF).write_bytes((folder / GGUF).read_bytes() + b"x"),
            r"tiny\.gguf: grown, 205 bytes instead of 204",
        ),
        (lambda folder: flip_a_bit(folder / "tokenizer/tokenizer.json"), r"tokenizer/tokenizer\.json: changed"),
        (lambda folder: (folder / "README.md").unlink(), r"README\.md: missing"),
        (lambda folder: (folder / "tokenizer/extra.json").touch(), r"tokenizer/extra\.json: foreign"),
        (lambda folder: (folder / "other.gguf").write_bytes(b"GGUF"), r"other\.gguf: foreign"),
        (lambda folder: replace_by_link(folder / GGUF), r"tiny\.gguf: a symbolic link"),
        (lambda folder: replace_by_link(folder / "tokenizer"), r"tokenizer: a symbolic link"),
        (lambda folder: replace_by_link(folder / RECORD), r"provenance\.json: a symbolic link"),
        (lambda folder: os.mkfifo(folder / "pipe"), r"pipe: neither file nor folder"),
        (change_a_setting, r"provenance\.json: changed after packaging"),
        (lambda folder: (folder / RECORD).unlink(), r"provenance\.json: not readable"),
        (lambda folder: (folder / RECORD).write_text("[]"), r"provenance\.json: not one JSON object"),
        (
            lambda folder: (folder / RECORD).write_text('{"files": {"a": "0"}}'),
            r"provenance\.json: lists no files with",
        ),
    ],
)
def test_any_damage_is_refused_by_name_in_one_line(
    package: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(package)
    with pytest.raises(ModelError, match=message) as caught:
        verify_model(package)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        None,
        [],
        {"export": {"n_ctx": 64}, "model": {"name": "tiny"}},
        {"export": {"n_ctx": "64"}, "model": {"name": "tiny"}, "data": {"system_prompt": None}},
        {"export": {"n_ctx": 0}, "model": {"name": "tiny"}, "data": {"system_prompt": None}},
        {"export": {"n_ctx": 64}, "model": "tiny", "data": {"system_prompt": None}},
        {"export": {"n_ctx": 64}, "model": {"name": "tiny"}, "data": {"system_prompt": 3}},
    ],
)
def test_a_record_with_a_right_digest_and_other_settings_is_one_line(package: Path, settings: object) -> None:
    content = json.loads((package / RECORD).read_text()) | {"settings": settings}
    (package / RECORD).write_text(json.dumps(content | {"record_sha256": record_sha256(content)}))
    with pytest.raises(ModelError, match=r"provenance\.json: settings lacks model\.name") as caught:
        verify_model(package)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["commit", "repo", "rev"])
def test_a_deployment_that_names_no_source_is_one_line(package: Path, key: str) -> None:
    deployment: dict[str, object] = {"commit": "1", "repo": "r", "rev": "v1"}
    deployment["provenance_sha256"] = file_digests(package / RECORD)["sha256"]
    (package.parent / "deployment.json").write_text(json.dumps(deployment))
    assert verify_model(package).deployment == deployment
    (package.parent / "deployment.json").write_text(json.dumps(deployment | {key: None}))
    with pytest.raises(ModelError, match=r"deployment\.json: lacks commit, repo or rev; deploy"):
        verify_model(package)


def test_a_link_into_dvcs_cache_names_cause_and_fix(package: Path) -> None:
    cached = package.parent / "cache/files/md5/ab/cdef"
    cached.parent.mkdir(parents=True)
    (package / GGUF).rename(cached)
    (package / GGUF).symlink_to(cached)
    with pytest.raises(ModelError, match=r"tiny\.gguf: .*DVC's cache.*`dvc config cache\.type.*--relink`"):
        verify_model(package)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("pytorch_model.bin", b"weights"),
        ("model.safetensors", pickle.dumps({"a": 1}, protocol=2)),
        ("model.safetensors", pickle.dumps({"a": 1})),
        ("model.safetensors", b"PK\x03\x04data.pkl"),
    ],
)
def test_a_pickle_is_refused_even_if_it_is_listed(package: Path, name: str, content: bytes) -> None:
    (package / name).write_bytes(content)
    record(package)
    with pytest.raises(ModelError, match=f"{name}: a pickle"):
        verify_model(package)


def test_a_safetensors_header_that_looks_like_a_pickle_is_none(package: Path) -> None:
    (package / "model.safetensors").write_bytes((0x0280).to_bytes(8, "little") + b"{" + b" " * 0x280)
    verify_model(record(package))


def test_a_listed_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"tiny\.gguf: no GGUF file"):
        verify_model(write_package(tmp_path / "deploy", b"<html>not found</html>"))


@pytest.mark.parametrize("names", [(), (GGUF, "second.gguf")])
def test_exactly_one_gguf_is_served(package: Path, names: tuple[str, ...]) -> None:
    (package / GGUF).unlink()
    for name in names:
        (package / name).write_bytes(b"GGUF")
    with pytest.raises(ModelError, match=f"lists {len(names)} GGUF files"):
        verify_model(record(package))


def test_command_says_what_it_verified(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dispatch(["verify-model", str(package)])
    assert "every hash as recorded" in capsys.readouterr().out


def test_command_names_the_commit_that_the_model_was_made_of(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = json.loads((package / RECORD).read_text())
    for git, line in {
        ("1" * 40, False): f"made of   commit {'1' * 40}\n",
        ("1" * 40, True): f"made of   commit {'1' * 40}, and changes that were not committed\n",
        (None, None): "",
    }.items():
        content = written | {"git": dict(zip(("commit", "dirty"), git, strict=True))}
        (package / RECORD).write_text(json.dumps(content | {"record_sha256": record_sha256(content)}))
        dispatch(["verify-model", str(package)])
        said = capsys.readouterr().out
        assert line in said
        assert ("made of" in said) == bool(line)


def test_serving_needs_neither_torch_nor_dvc(pytestconfig: pytest.Config) -> None:
    heavy = "{'torch', 'transformers', 'numpy', 'dvc', 'llama_cpp', 'openai'}"
    modules = "tuneline.commands.chat, tuneline.commands.serve, tuneline.commands.verify_model"
    code = f"import sys, {modules}\nprint(sorted({heavy} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(pytestconfig.rootpath / "src")}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert ran.stdout.strip() == "[]"
