"""Real architectures, small: the head layout, norms, biases, rope and tokenizer of each family, random weights.

Nothing heavy is imported with this module. `MINIATURES` is the table; everything below it builds what a row says.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tests.export.conftest import TEXTS, model_config

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tuneline.config.schema import ModelConfig

CHATML = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
CHATML_WITH_TOOLS = (
    "{%- if tools %}{{- '<|im_start|>system\\n' }}"
    "{%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n' }}{%- endif %}"
    "{%- for tool in tools %}{{- tool | tojson + '\\n' }}{%- endfor %}{{- '<|im_end|>\\n' }}{%- endif %}"
    "{%- for message in messages if not (tools and message.role == 'system') %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content }}"
    "{%- for call in message.tool_calls or [] %}"
    "{{- '<call>' + call.function.name + ' ' + (call.function.arguments | tojson) + '</call>' }}{%- endfor %}"
    "{{- '<|im_end|>\\n' }}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
CHATML_WITH_THOUGHTS = (
    "{%- for message in messages %}{%- set said = message.content %}"
    "{%- if message.role == 'assistant' and loop.last %}"
    "{%- set said = '<think>\\n\\n</think>\\n\\n' + said %}{%- endif %}"
    "{{- '<|im_start|>' + message.role + '\\n' + said + '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}"
    "{%- endif %}"
)
LLAMA3_TURNS = (
    "{{- bos_token }}{%- for message in messages %}"
    "{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + message.content + '<|eot_id|>' }}"
    "{%- endfor %}{%- if add_generation_prompt %}"
    "{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"
)
GEMMA_TURNS = (
    "{{- bos_token }}{%- for message in messages %}"
    "{%- set role = 'model' if message.role == 'assistant' else message.role %}"
    "{{- '<start_of_turn>' + role + '\\n' + message.content | trim + '<end_of_turn>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<start_of_turn>model\\n' }}{%- endif %}"
)
MISTRAL_TURNS = (
    "{{- bos_token }}{%- for message in messages %}{%- if message.role == 'user' %}"
    "{{- '[INST] ' + message.content + '[/INST]' }}{%- elif message.role == 'assistant' %}"
    "{{- ' ' + message.content + eos_token }}{%- else %}{{- raise_exception('only user and assistant') }}{%- endif %}"
    "{%- endfor %}"
)
PHI3_TURNS = (
    "{%- for message in messages %}{{- '<|' + message.role + '|>\\n' + message.content + '<|end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|assistant|>\\n' }}{%- endif %}"
)
PHI4_TURNS = (
    "{%- for message in messages %}{{- '<|' + message.role + '|>' + message.content + '<|end|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|assistant|>' }}{%- endif %}"
)

_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_WORD, _TAIL = r"[^\r\n\p{L}\p{N}]?", "(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
O200K_SPLIT = (
    _WORD + f"{_UPPER}*{_LOWER}+" + _TAIL + _WORD + f"{_UPPER}+{_LOWER}*" + _TAIL
    + r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)  # fmt: skip

Split = Literal["llama3", "qwen2", "gpt-2", "smollm", "o200k"]


@dataclass(frozen=True)
class ByteLevel:
    """Byte-level BPE with the pre-tokenizer `split`; its special tokens come last, as in the published ones."""

    split: Split
    specials: tuple[str, ...]
    eos: str
    pad: str
    bos: str | None = None  # written before every text
    nfc: bool = False


@dataclass(frozen=True)
class Pieces:
    """SentencePiece: tokenizer.model, and a tokenizer.json that reads text as it does.

    `added` lies beyond the model's own pieces. `prefix` says where a space is put: before every stretch of text between
    special tokens ("always", Llama 2 and Phi 3), only at the very start ("first", Mistral v0.3), nowhere (Gemma).
    """

    first_ids: tuple[str, str, str, str]  # unk, bos, eos, pad as ids say; "" for one it lacks
    controls: tuple[str, ...]
    users: tuple[str, ...]
    added: tuple[str, ...]
    eos: str
    pad: str
    prefix: Literal["always", "first", "nowhere"]
    bos: str | None
    rstrip: bool = False
    kind: Literal["bpe", "unigram"] = "bpe"


@dataclass(frozen=True)
class Miniature:
    """`config` is what differs from `_SHAPE`; `stops` end a turn; `family` is the Modelfile's."""

    model_class: str
    tokenizer: ByteLevel | Pieces
    template: str
    stops: tuple[str, ...]
    family: str | None
    config: dict[str, Any] = field(default_factory=dict)
    lora: dict[str, Any] = field(default_factory=dict)
    chat_template_kwargs: dict[str, bool | int | str] = field(default_factory=dict)

    @property
    def not_alone(self) -> str | None:
        """Why its adapter gets no GGUF of its own: an adapter of experts has two ranks, for gate and up are one."""
        has_experts = bool({"num_experts", "num_local_experts"} & self.config.keys())
        return "a DoRA adapter" if self.lora.get("use_dora") else "scales differ by layer" if has_experts else None


_SHAPE: dict[str, Any] = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.05,
}
_LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
_LLAMA3 = ByteLevel(
    "llama3",
    ("<|begin_of_text|>", "<|end_of_text|>", "<|finetune_right_pad_id|>", "<|start_header_id|>", "<|end_header_id|>",
     "<|eot_id|>"),
    eos="<|eot_id|>", pad="<|finetune_right_pad_id|>", bos="<|begin_of_text|>",
)  # fmt: skip
_QWEN = ByteLevel(
    "qwen2", ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), eos="<|im_end|>", pad="<|endoftext|>", nfc=True
)
_QWEN3 = ByteLevel(
    "qwen2",
    ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"),
    eos="<|im_end|>", pad="<|endoftext|>", nfc=True,
)  # fmt: skip
_SMOLLM = ByteLevel("smollm", ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), eos="<|im_end|>", pad="<|endoftext|>")
_PHI4 = ByteLevel(
    "gpt-2",
    ("<|endoftext|>", "<|assistant|>", "<|user|>", "<|system|>", "<|end|>", "<|pad|>"),
    eos="<|endoftext|>", pad="<|pad|>",
)  # fmt: skip
_GEMMA = Pieces(
    ("<unk>", "<bos>", "<eos>", "<pad>"),
    controls=(),
    users=("<start_of_turn>", "<end_of_turn>", "\n", "\n\n", "▁▁", "▁▁▁▁", "<b>"),
    added=(), eos="<eos>", pad="<pad>", prefix="nowhere", bos="<bos>",
)  # fmt: skip
_MISTRAL = Pieces(
    ("<unk>", "<s>", "</s>", ""),
    controls=("[INST]", "[/INST]", "[control_8]"), users=(), added=(),
    eos="</s>", pad="[control_8]", prefix="first", bos="<s>",
)  # fmt: skip
_PHI3 = Pieces(
    ("<unk>", "<s>", "</s>", ""),
    controls=(), users=(), added=("<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>"),
    eos="<|endoftext|>", pad="<unk>", prefix="always", bos=None,
)  # fmt: skip
_LLAMA2 = Pieces(
    ("<unk>", "<s>", "</s>", ""),
    controls=("[INST]", "[/INST]", "[control_8]"), users=(), added=(),
    eos="</s>", pad="[control_8]", prefix="always", bos="<s>",
)  # fmt: skip

_PHI3_STRIPPING = replace(_PHI3, rstrip=True)
_GEMMA_UNIGRAM = replace(_GEMMA, kind="unigram")

_LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0 + 0.05 * i for i in range(12)],
    "long_factor": [1.0 + 0.5 * i for i in range(12)],
    "original_max_position_embeddings": 256,
    "partial_rotary_factor": 0.75,
}

MINIATURES: dict[str, Miniature] = {
    "llama3": Miniature(
        "LlamaForCausalLM", _LLAMA3, LLAMA3_TURNS, ("<|eot_id|>", "<|end_of_text|>"), "Llama 3",
        {"tie_word_embeddings": False, "rope_parameters": _LLAMA3_ROPE, "head_dim": 32},
    ),
    "llama3-tied": Miniature(
        "LlamaForCausalLM", _LLAMA3, LLAMA3_TURNS, ("<|eot_id|>", "<|end_of_text|>"), "Llama 3",
        {"tie_word_embeddings": True, "rope_parameters": _LLAMA3_ROPE, "head_dim": 64}, {"use_rslora": True},
    ),
    "smollm2": Miniature(
        "LlamaForCausalLM", _SMOLLM, CHATML, ("<|im_end|>",), "ChatML",
        {"tie_word_embeddings": True, "hidden_size": 192, "intermediate_size": 512, "num_attention_heads": 3,
         "num_key_value_heads": 1},
    ),
    "qwen2": Miniature(
        "Qwen2ForCausalLM", _QWEN, CHATML_WITH_TOOLS, ("<|im_end|>", "<|endoftext|>"), "ChatML",
        {"tie_word_embeddings": True, "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0}},
        {"use_dora": True},
    ),
    "qwen2-untied": Miniature(
        "Qwen2ForCausalLM", _QWEN, CHATML, ("<|im_end|>", "<|endoftext|>"), "ChatML", {"tie_word_embeddings": False},
    ),
    "qwen3": Miniature(
        "Qwen3ForCausalLM", _QWEN3, CHATML_WITH_THOUGHTS, ("<|im_end|>", "<|endoftext|>"), "ChatML without thoughts",
        {"tie_word_embeddings": True, "head_dim": 64, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
        {}, {"enable_thinking": False},
    ),
    "qwen3-moe": Miniature(
        "Qwen3MoeForCausalLM", _QWEN3, CHATML_WITH_THOUGHTS, ("<|im_end|>", "<|endoftext|>"), "ChatML without thoughts",
        {"tie_word_embeddings": False, "head_dim": 64, "num_experts": 4, "num_experts_per_tok": 2,
         "moe_intermediate_size": 256, "norm_topk_prob": True,
         "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
        {}, {"enable_thinking": False},
    ),
    "mixtral": Miniature(
        "MixtralForCausalLM", _LLAMA2, MISTRAL_TURNS, ("</s>",), "Mistral",
        {"tie_word_embeddings": False, "sliding_window": None, "num_local_experts": 8, "num_experts_per_tok": 2,
         "intermediate_size": 256},
    ),
    "mistral": Miniature(
        "MistralForCausalLM", _LLAMA2, MISTRAL_TURNS, ("</s>",), "Mistral",
        {"tie_word_embeddings": False, "sliding_window": None, "head_dim": 32},
    ),
    "gemma3": Miniature(
        "Gemma3ForCausalLM", _GEMMA, GEMMA_TURNS, ("<end_of_turn>", "<eos>"), "Gemma",
        {"tie_word_embeddings": True, "num_hidden_layers": 6, "head_dim": 64, "query_pre_attn_scalar": 64,
         "num_attention_heads": 4, "num_key_value_heads": 1, "sliding_window": 16},
        {"lora_alpha": 16},  # its norms behind every block leave little of a smaller one
    ),
    "phi3": Miniature(
        "Phi3ForCausalLM", _PHI3, PHI3_TURNS, ("<|end|>", "<|endoftext|>"), "Phi 3",
        {"tie_word_embeddings": False, "num_key_value_heads": 8, "original_max_position_embeddings": 512,
         "sliding_window": 256},
    ),
    "phi4-mini": Miniature(
        "Phi3ForCausalLM", _PHI4, PHI4_TURNS, ("<|end|>", "<|endoftext|>"), "Phi 4 mini",
        {"tie_word_embeddings": True, "rope_parameters": _LONGROPE, "original_max_position_embeddings": 256,
         "sliding_window": None},
    ),
}  # fmt: skip

# Those whose text llama.cpp reads otherwise than Transformers: no file may come of them.
REFUSED: dict[str, Miniature] = {
    "phi4-mini, o200k split": replace(MINIATURES["phi4-mini"], tokenizer=replace(_PHI4, split="o200k")),
    "phi3, tokens that take the space after them": replace(MINIATURES["phi3"], tokenizer=_PHI3_STRIPPING),
    "mistral, a space before the first word only": replace(MINIATURES["mistral"], tokenizer=_MISTRAL),
    "gemma, unigram": replace(MINIATURES["gemma3"], tokenizer=_GEMMA_UNIGRAM),
}


def base_config(miniature: Miniature, folder: Path) -> "ModelConfig":
    return model_config(folder).model_copy(update={"chat_template_kwargs": miniature.chat_template_kwargs})


def save_base(miniature: Miniature, folder: Path) -> None:
    """Tokenizer, random weights (norms and biases too), and a generation_config.json with the stops."""
    import torch
    import transformers

    tokenizer = save_tokenizer(miniature, folder)
    ids = [tokenizer.convert_tokens_to_ids(stop) for stop in miniature.stops]
    special = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": ids, "pad_token_id": tokenizer.pad_token_id}
    model_class: Any = getattr(transformers, miniature.model_class)
    torch.manual_seed(0)
    model = model_class(model_class.config_class(vocab_size=len(tokenizer), **_SHAPE | miniature.config, **special))
    for name, weight in model.named_parameters():
        if name.endswith(("norm.weight", "bias")):  # as initialised they are all one or zero, and prove nothing
            torch.nn.init.normal_(weight, mean=weight.detach().mean().item(), std=0.2)
    model.generation_config.eos_token_id = ids
    model.save_pretrained(folder)


def teach(folder: Path, rows: Sequence[Sequence[int]]) -> None:
    """Some steps of training on `rows`: a model that was never trained has near ties at the top everywhere."""
    import torch
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    for step in range(15):  # a loss of 0.4 nats; with 40 steps, and 0.02, an adapter would hardly change anything
        ids_BT = torch.tensor([rows[step % len(rows)]])
        model(input_ids=ids_BT, labels=ids_BT).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)


def save_adapter(miniature: Miniature, base: Path, folder: Path) -> None:
    """A LoRA of rank 4 on every linear layer, neither of its matrices zero, with the base's tokenizer."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from tuneline.model.tokenizers import load_tokenizer

    settings = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear", **{"lora_alpha": 8} | miniature.lora)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), settings)
    torch.manual_seed(1)
    for name, weight in model.named_parameters():
        if "lora_magnitude" in name:  # DoRA's: near the norms that it starts from
            weight.data *= 1 + 0.1 * torch.rand_like(weight)
        elif "lora_" in name:
            torch.nn.init.normal_(weight, std=0.05)
    model.save_pretrained(str(folder))
    load_tokenizer(base_config(miniature, base)).save_pretrained(folder)


def save_tokenizer(miniature: Miniature, folder: Path) -> "PreTrainedTokenizerBase":
    from transformers import PreTrainedTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    match miniature.tokenizer:
        case ByteLevel() as spec:
            raw = _byte_level(spec)
            if spec.bos is not None:
                _write_bos(raw, spec.bos)
        case Pieces() as spec:
            raw = _pieces(spec, folder)
            if spec.bos is not None:
                _write_bos(raw, spec.bos)
    unk = {"unk_token": "<unk>"} if isinstance(spec, Pieces) else {}
    bos = {} if spec.bos is None else {"bos_token": spec.bos}
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # Transformers leaves it untyped
        tokenizer_object=raw, eos_token=spec.eos, pad_token=spec.pad, **unk, **bos
    )
    tokenizer.chat_template = miniature.template
    tokenizer.save_pretrained(folder)
    return tokenizer


def _write_bos(raw: Any, bos: str) -> None:
    from tokenizers.processors import TemplateProcessing

    special = [(bos, raw.token_to_id(bos))]
    raw.post_processor = TemplateProcessing(single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=special)


def _byte_level(spec: ByteLevel) -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    raw = Tokenizer(models.BPE(ignore_merges=spec.split == "llama3"))
    raw.pre_tokenizer, raw.decoder = _split(spec.split), decoders.ByteLevel()
    if spec.nfc:
        raw.normalizer = normalizers.NFC()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    size = 512 - len(spec.specials)
    raw.train_from_iterator(
        TEXTS * 2, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    )
    raw.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in spec.specials])
    return raw


def _split(split: Split) -> Any:
    from tokenizers import Regex
    from tokenizers.pre_tokenizers import ByteLevel as Bytes
    from tokenizers.pre_tokenizers import Digits, Sequence
    from tokenizers.pre_tokenizers import Split as SplitBy

    from tuneline.export import pretokenizer

    match split:
        case "gpt-2":
            return Bytes(add_prefix_space=False)
        case "smollm":
            return Sequence([Digits(individual_digits=True), Bytes(add_prefix_space=False)])
        case "llama3":
            pattern = pretokenizer.LLAMA3_SPLIT
        case "qwen2":
            pattern = pretokenizer.QWEN2_SPLIT
        case "o200k":
            pattern = O200K_SPLIT
    bytes_only = Bytes(add_prefix_space=False, use_regex=False)
    return Sequence([SplitBy(Regex(pattern), "isolated"), bytes_only])


def _pieces(spec: Pieces, folder: Path) -> Any:
    """Train tokenizer.model, and say the same in Tokenizers' rules, as the published tokenizer.json do."""
    from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

    unk, bos, eos, pad = spec.first_ids
    order: dict[str, Any] = (
        {"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3} if pad else {"unk_id": 0, "bos_id": 1, "eos_id": 2}
    )
    corpus = [text.replace("\n", " ").replace("\t", " ") for text in TEXTS for _ in range(2)]
    SentencePieceTrainer.train(
        sentence_iterator=iter(corpus), model_prefix=str(folder / "tokenizer"), model_type=spec.kind,
        vocab_size=440, hard_vocab_limit=False, byte_fallback=True, split_digits=True, character_coverage=1.0,
        normalization_rule_name="identity", remove_extra_whitespaces=False,
        add_dummy_prefix=spec.prefix != "nowhere", allow_whitespace_only_pieces=True,
        control_symbols=list(spec.controls), user_defined_symbols=list(spec.users),
        unk_piece=unk, bos_piece=bos, eos_piece=eos, pad_piece=pad or "<pad>", minloglevel=2, num_threads=1, **order,
    )  # fmt: skip
    (folder / "tokenizer.vocab").unlink()
    return _as_tokenizer_json(spec, SentencePieceProcessor(model_file=str(folder / "tokenizer.model")))


def _as_tokenizer_json(spec: Pieces, trained: Any) -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders

    pieces = [trained.IdToPiece(i) for i in range(trained.GetPieceSize())]
    scores = [trained.GetScore(i) for i in range(len(pieces))]
    raw = Tokenizer(_bpe(pieces, scores) if spec.kind == "bpe" else _unigram(pieces, scores))
    _set_spaces(raw, spec)
    raw.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    known = [token for token in spec.first_ids if token]
    # Phi 3 takes the white space after </s> and after every token of a turn, but not after <|endoftext|>
    stripping = {"</s>", *spec.added} - {spec.eos} if spec.rstrip else set()
    specials = [*known, *spec.controls, *spec.added]
    raw.add_tokens([AddedToken(t, normalized=False, special="turn" in t) for t in spec.users])
    raw.add_special_tokens([AddedToken(t, special=True, normalized=False, rstrip=t in stripping) for t in specials])
    return raw


def _bpe(pieces: list[str], scores: list[float]) -> Any:
    """Every pair of pieces that makes a piece, the best piece's first: how SentencePiece merges."""
    from tokenizers import models

    ids = {piece: i for i, piece in enumerate(pieces)}
    pairs = [
        (-scores[ids[piece]], ids[piece[:cut]], ids[piece[cut:]], piece[:cut], piece[cut:])
        for piece in pieces
        for cut in range(1, len(piece))
        if piece[:cut] in ids and piece[cut:] in ids
    ]
    merges = [(left, right) for *_, left, right in sorted(pairs)]
    return models.BPE(vocab=ids, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)


def _unigram(pieces: list[str], scores: list[float]) -> Any:
    from tokenizers import models

    return models.Unigram(list(zip(pieces, scores, strict=True)), unk_id=pieces.index("<unk>"), byte_fallback=True)


def _set_spaces(raw: Any, spec: Pieces) -> None:
    from tokenizers import normalizers, pre_tokenizers

    match spec.prefix:
        case "always":
            raw.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        case "first":
            raw.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=False)
        case "nowhere":
            raw.normalizer = normalizers.Replace(" ", "▁")
            raw.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")


def edit_json(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    value = json.loads(file.read_text(encoding="utf-8"))
    change(value)
    file.write_text(json.dumps(value), encoding="utf-8")
