"""Written block by block, a file is what safetensors itself writes; a bit that changed on the way is noticed."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tuneline.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

pytestmark = pytest.mark.slow


@pytest.fixture
def tensors() -> "dict[str, Tensor]":
    import torch

    return {
        "b": torch.randn(30, 5),
        "a": torch.randn(7, 3, 2).bfloat16(),
        "scalar": torch.tensor(3.0),
        "empty": torch.empty(0, 4),
        "größe": torch.randn(100),
    }


def write(tensors: "dict[str, Tensor]", file: Path) -> None:
    from tuneline.export.shard import write_shard

    def rows(name: str) -> "list[Tensor]":
        tensor = tensors[name]
        return [tensor] if tensor.dim() == 0 else [tensor[i : i + 4] for i in range(0, len(tensor), 4)]

    types = {"float32": "F32", "bfloat16": "BF16"}
    layout = {name: (tuple(t.shape), types[str(t.dtype).removeprefix("torch.")]) for name, t in tensors.items()}
    write_shard(file, layout, rows)


def test_the_file_is_byte_for_byte_what_safetensors_writes(tensors: "dict[str, Tensor]", tmp_path: Path) -> None:
    from safetensors.torch import save_file

    write(tensors, tmp_path / "ours.safetensors")
    save_file(tensors, tmp_path / "theirs.safetensors", metadata={"format": "pt"})
    assert (tmp_path / "ours.safetensors").read_bytes() == (tmp_path / "theirs.safetensors").read_bytes()


def test_a_bit_that_is_another_one_on_disk_is_noticed_by_tensor(
    tensors: "dict[str, Tensor]", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors import safe_open

    from tuneline.export import shard

    file = tmp_path / "x.safetensors"

    def flip_a_bit_and_open(path: Path, framework: str) -> Any:
        data = bytearray(path.read_bytes())
        n_header = int.from_bytes(data[:8], "little")
        data[8 + n_header + json.loads(data[8 : 8 + n_header])["b"]["data_offsets"][1] - 1] ^= 1
        path.write_bytes(data)
        return safe_open(path, framework=framework)

    monkeypatch.setattr(shard, "safe_open", flip_a_bit_and_open)
    with pytest.raises(ModelError, match=r"x\.safetensors: tensor b was not written as it is in memory"):
        write(tensors, file)


def test_rows_come_in_blocks_and_make_the_tensor_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from safetensors.torch import save_file

    from tuneline.export import checkpoint

    monkeypatch.setattr(checkpoint, "BLOCK", 20)
    content = {"matrix": torch.randn(11, 6), "wide": torch.randn(3, 50), "one": torch.tensor(2.0)}
    save_file(content, tmp_path / "model.safetensors")
    found = checkpoint.Checkpoint(tmp_path)
    blocks = {name: list(found.blocks(name)) for name in content}
    assert [len(block) for block in blocks["matrix"]] == [3, 3, 3, 2]
    assert [len(block) for block in blocks["wide"]] == [1, 1, 1]
    assert all(torch.equal(torch.cat(blocks[name]), content[name]) for name in ("matrix", "wide"))
    assert torch.equal(blocks["one"][0], content["one"])
