"""What is wrong with a source is told in one line: the file and tensor, or what differs; of adapters and of models."""

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.export.conftest import PEFT_WARNING, save_model, save_tokenizer
from tests.export.test_combine import LAYER, PREFIX, new_adapter, run_combine, settings, tensors
from tuneline.errors import ModelError

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings(PEFT_WARNING)]

Family = Literal["adapter", "full"]
FILES = {"adapter": "adapter_model.safetensors", "full": "model.safetensors"}
NAMES = {"adapter": f"{PREFIX}.lora_A.weight", "full": f"{LAYER}.weight"}


@pytest.fixture(scope="module")
def sources(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    folder = tmp_path_factory.mktemp("sources")
    for seed in (1, 2):
        save_model(folder / f"model{seed}", seed, tied=True, hidden_size=64)
        save_tokenizer(folder / f"model{seed}")
    return {
        "adapter": (new_adapter(base, folder / "a", 1), new_adapter(base, folder / "b", 2)),
        "full": (folder / "model1", folder / "model2"),
    }


def refusal(family: Family, broken: Path, sound: Path, place: int, base: Path, out: Path) -> str:
    order = (broken, sound) if place == 0 else (sound, broken)
    way = "cat" if family == "adapter" else "linear"
    with pytest.raises(ModelError) as caught:
        run_combine(settings(family, way, *[(folder, 0.5) for folder in order]), base, [[1, 2, 3]], out)
    assert list(out.iterdir()) == []
    assert "\n" not in str(caught.value)
    return str(caught.value)


def with_nan(weights: Any, name: str) -> None:
    weights[name][-1, -1] = float("nan")


def without(weights: Any, name: str) -> None:
    del weights[name]


def of_another_shape(weights: Any, name: str) -> None:
    weights[name] = weights[name][:, :-1].contiguous()


@pytest.mark.parametrize("family", ["adapter", "full"])
@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize(
    ("fault", "words"),
    [(with_nan, "not finite"), (without, "missing"), (of_another_shape, "x63")],
)
def test_a_faulty_tensor_is_refused_with_its_file_and_name(
    family: Family, place: int, fault: Callable[[Any, str], None], words: str,
    sources: dict[str, tuple[Path, Path]], base: Path, tmp_path: Path,
) -> None:  # fmt: skip
    from safetensors.torch import save_file

    file, name = FILES[family], NAMES[family]
    shutil.copytree(sources[family][place], tmp_path / "broken")
    weights = tensors(tmp_path / "broken")
    fault(weights, name)
    save_file(weights, tmp_path / "broken" / file, metadata={"format": "pt"})
    message = refusal(family, tmp_path / "broken", sources[family][1 - place], place, base, tmp_path / "out")
    assert name in message
    assert words in message.replace("x255", "x63")  # the width of the adapters' base is another
    assert str(tmp_path / "broken" / file) in message


@pytest.mark.parametrize("family", ["adapter", "full"])
def test_a_pickle_beside_or_instead_of_safetensors_is_never_read(
    family: Family, sources: dict[str, tuple[Path, Path]], base: Path, tmp_path: Path
) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "exploded",)

    shutil.copytree(sources[family][1], tmp_path / "broken")
    file = Path(FILES[family]).with_suffix(".bin")
    (tmp_path / "broken" / file).write_bytes(pickle.dumps(Bomb()))
    for number in range(2):
        message = refusal(family, tmp_path / "broken", sources[family][0], 1, base, tmp_path / f"out{number}")
        assert f"{file}: a pickle, which is never read" in message
        (tmp_path / "broken" / FILES[family]).unlink(missing_ok=True)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("family", ["adapter", "full"])
@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (lambda it: it.add_tokens(["<|new|>"]), "token '<|new|>' has id"),
        (lambda it: setattr(it, "eos_token", "<|im_start|>"), "EOS '<|im_start|>'"),
        (lambda it: setattr(it, "pad_token", "<|im_start|>"), "pad '<|im_start|>'"),
        (lambda it: setattr(it, "chat_template", it.chat_template + " "), "the chat template"),
        (lambda it: setattr(it.backend_tokenizer, "normalizer", nfkc()), "the normalizer"),
    ],
)
def test_another_tokenizer_is_refused_by_what_differs(
    family: Family, change: Callable[[Any], object], difference: str,
    sources: dict[str, tuple[Path, Path]], base: Path, tmp_path: Path,
) -> None:  # fmt: skip
    from transformers import AutoTokenizer

    shutil.copytree(sources[family][1], tmp_path / "broken")
    tokenizer: Any = AutoTokenizer.from_pretrained(tmp_path / "broken")
    change(tokenizer)
    tokenizer.save_pretrained(tmp_path / "broken")
    message = refusal(family, tmp_path / "broken", sources[family][0], 1, base, tmp_path / "out")
    assert message.startswith(f"{tmp_path / 'broken'}: its tokenizer differs from that of {sources[family][0]}: ")
    assert difference in message


def nfkc() -> Any:
    from tokenizers import normalizers

    return normalizers.NFKC()


def test_quantised_models_are_refused_by_the_type_of_their_weights(
    sources: dict[str, tuple[Path, Path]], base: Path, tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import save_file

    for number, folder in enumerate(sources["full"]):
        shutil.copytree(folder, tmp_path / str(number))
        weights = tensors(folder)
        weights[NAMES["full"]] = weights[NAMES["full"]].to(torch.uint8)
        save_file(weights, tmp_path / str(number) / "model.safetensors", metadata={"format": "pt"})
    message = refusal("full", tmp_path / "0", tmp_path / "1", 0, base, tmp_path / "out")
    assert f"0/model.safetensors: tensor {NAMES['full']} is 128x64 U8, allowed is F64, F32, F16, BF16;" in message
