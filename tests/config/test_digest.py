"""When the fingerprint of conf/ changes, and when it does not."""

import hashlib
from pathlib import Path

from tuneline.config.digest import conf_digest


def test_digest_is_what_a_reader_of_the_docstring_computes(conf: Path) -> None:
    stream = b"11 config.yaml 8 seed: 1\n12 model/a.yaml 16 name: a\nsize: 2\n"
    assert conf_digest(conf) == hashlib.sha256(stream).hexdigest()


def test_digest_ignores_line_ends_and_other_files(conf: Path) -> None:
    before = conf_digest(conf)
    (conf / "config.yaml").write_bytes(b"seed: 1\r\n")
    (conf / "plugin.py").write_bytes(b"x = 1\n")
    (conf / "__pycache__").mkdir()
    assert conf_digest(conf) == before


def test_digest_changes_with_text_name_and_number_of_files(conf: Path) -> None:
    seen = {conf_digest(conf)}
    (conf / "model" / "a.yaml").write_bytes(b"name: a\nsize: 3\n")
    seen.add(conf_digest(conf))
    (conf / "model" / "a.yaml").rename(conf / "model" / "b.yaml")
    seen.add(conf_digest(conf))
    (conf / "model" / "c.yaml").write_bytes(b"")
    seen.add(conf_digest(conf))
    assert len(seen) == 4


def test_digest_does_not_depend_on_where_conf_lies(conf: Path) -> None:
    moved = conf.with_name("elsewhere")
    before = conf_digest(conf)
    conf.rename(moved)
    assert conf_digest(moved) == before
