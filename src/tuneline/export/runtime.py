"""llama.cpp in this process: the very library that will run the shipped GGUF, driven through its low-level API.

`Runtime` owns native memory: use it as a context manager. `llama_cpp.Llama` is not used: its destructor raises at
interpreter exit, it keeps the logits of every row, and it refuses chat templates with a generation block.
"""

import ctypes
import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from tuneline.errors import ModelError
from tuneline.export.header import read_header
from tuneline.export.llama_cpp import is_repacking_safe

LogitsNV = NDArray[np.float32]

_LOG_ERROR = 4  # ggml_log_level in ggml.h; llama_cpp's own table of the levels is out of date
_LONGEST_PIECE_BYTES = 4096
_SMALL_MODEL_BYTES = 64 * 2**20
_errors: deque[str] = deque(maxlen=5)


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]  # ctypes.CFUNCTYPE
def _keep_errors(level: int, text: bytes, _user_data: ctypes.c_void_p) -> None:
    if level == _LOG_ERROR:
        _errors.append(text.decode("utf-8", "replace").strip())


@contextmanager
def quiet() -> Iterator[deque[str]]:
    """Silence llama.cpp's log; yields its last error lines, which is what a failure's message should quote."""
    _errors.clear()
    llama_cpp.llama_log_set(_keep_errors, ctypes.c_void_p(0))
    yield _errors


class Vocabulary:
    """The tokenizer inside a GGUF file."""

    def __init__(self, model: Any) -> None:
        vocabulary = llama_cpp.llama_model_get_vocab(model)
        assert vocabulary is not None
        self._vocabulary = vocabulary
        self.size = llama_cpp.llama_vocab_n_tokens(vocabulary)

    def encode(self, text: str, *, add_special: bool) -> list[int]:
        """Token ids of `text`, in which special tokens are recognised; BOS/EOS as the file says with `add_special`."""
        raw = text.encode("utf-8")
        room = len(raw) + 8
        buffer = (llama_cpp.llama_token * room)()
        count = llama_cpp.llama_tokenize(self._vocabulary, raw, len(raw), buffer, room, add_special, True)
        if count < 0:
            raise ModelError(f"llama.cpp cannot tokenise {text[:40]!r}")
        return list(buffer[:count])

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids` without special tokens, piece by piece as llama.cpp's server and Ollama write it.

        `llama_detokenize` is not used: for some tokenizer types it takes out the space before punctuation.
        """
        return b"".join(self._piece(token) for token in ids).decode("utf-8", "replace")

    def _piece(self, token: int) -> bytes:
        buffer = ctypes.create_string_buffer(_LONGEST_PIECE_BYTES)
        count = llama_cpp.llama_token_to_piece(self._vocabulary, token, buffer, len(buffer), 0, False)
        assert count >= 0, f"token {token} is longer than {_LONGEST_PIECE_BYTES} bytes"
        return buffer.raw[:count]

    def ends_generation(self, token: int) -> bool:
        return bool(llama_cpp.llama_vocab_is_eog(self._vocabulary, token))

    @property
    def bos_id(self) -> int | None:
        return _token_or_none(llama_cpp.llama_vocab_bos(self._vocabulary))

    @property
    def eos_id(self) -> int | None:
        return _token_or_none(llama_cpp.llama_vocab_eos(self._vocabulary))


def _token_or_none(token: int) -> int | None:
    return token if token >= 0 else None


@contextmanager
def open_vocabulary(gguf: Path) -> Iterator[Vocabulary]:
    """Load only the tokenizer of `gguf`: fast, whatever the size of its weights."""
    model = _load(gguf, vocab_only=True)
    try:
        yield Vocabulary(model)
    finally:
        llama_cpp.llama_model_free(model)


def check_weights(gguf: Path) -> None:
    """Raise `ModelError` when llama.cpp cannot load the file, or naming a tensor that holds NaN or infinity.

    Logits need not show it: of an embedding, only the rows of tokens that occur are read.
    """
    try:
        llama_cpp.llama_model_free(_load(gguf, vocab_only=False, check_tensors=True))
    except ModelError as error:
        if "invalid data" not in str(error):
            raise
        raise ModelError(
            f"{error}: it holds NaN or infinity; the usual causes are weights beyond float16 (set export.outtype=bf16) "
            "and a file that was changed after it was made (`dvc repro` makes it again)"
        ) from None


def _load(gguf: Path, *, vocab_only: bool, check_tensors: bool = False) -> Any:
    _check_vocabulary(gguf)
    params = llama_cpp.llama_model_default_params()
    params.n_gpu_layers = 0  # the processor's figures are the ones every machine can repeat
    params.vocab_only, params.check_tensors = vocab_only, check_tensors
    params.use_extra_bufts = is_repacking_safe()
    with quiet() as errors:
        model = llama_cpp.llama_model_load_from_file(str(gguf).encode("utf-8"), params)
    if not model:
        raise ModelError(f"{gguf}: llama.cpp cannot load it: {'; '.join(errors) or 'no reason given'}")
    return model


def _check_vocabulary(gguf: Path) -> None:
    """Raise `ModelError` for what llama.cpp does not refuse, but ends the process for (GGML_ASSERT)."""
    tokens = read_header(gguf).metadata.get("tokenizer.ggml.tokens", [])
    if isinstance(tokens, list) and len(set(tokens)) < len(tokens):
        raise ModelError(f"{gguf}: two of its tokens have one text; convert or quantise it again")


class Runtime:
    """One GGUF model with room for `n_sequences` conversations of `n_ctx_tokens` each; its KV cache is f16 as deployed.

    `n_sequences` > 1 reads a large model's weights once for several answers; it does not change them. `adapter` is a
    LoRA in a GGUF of its own, put onto the model as llama.cpp's server does it, with the scale that its file says.
    """

    def __init__(self, gguf: Path, *, n_ctx_tokens: int, n_sequences: int, adapter: Path | None = None) -> None:
        self.gguf, self.n_ctx_tokens, self.n_sequences, self.adapter = gguf, n_ctx_tokens, n_sequences, adapter
        self._model = _load(gguf, vocab_only=False)
        self.vocabulary = Vocabulary(self._model)
        self.n_threads = n_threads(self.weight_bytes)
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_seq_max = n_ctx_tokens * n_sequences, n_sequences
        params.n_batch = params.n_ubatch = max(n_ctx_tokens, n_sequences)
        params.n_threads = params.n_threads_batch = self.n_threads
        with quiet() as errors:
            self._context = llama_cpp.llama_init_from_model(self._model, params)
        if not self._context:
            llama_cpp.llama_model_free(self._model)
            raise ModelError(f"{gguf}: no context of {params.n_ctx} tokens: {'; '.join(errors)}")
        if adapter is not None:
            self._put_on(adapter)
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._batch = llama_cpp.llama_batch_init(params.n_batch, 0, 1)

    def _put_on(self, adapter: Path) -> None:
        with quiet() as errors:
            loaded = llama_cpp.llama_adapter_lora_init(self._model, str(adapter).encode("utf-8"))  # the model owns it
            adapters, scales = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(loaded), (ctypes.c_float * 1)(1.0)
            if loaded and llama_cpp.llama_set_adapters_lora(self._context, adapters, 1, scales) == 0:
                return
            reason = "; ".join(errors) or "no reason given"
        llama_cpp.llama_free(self._context)
        llama_cpp.llama_model_free(self._model)
        raise ModelError(f"{adapter}: llama.cpp cannot put it onto {self.gguf}: {reason}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        llama_cpp.llama_batch_free(self._batch)
        llama_cpp.llama_free(self._context)
        llama_cpp.llama_model_free(self._model)

    @property
    def n_parameters(self) -> int:
        return int(llama_cpp.llama_model_n_params(self._model))

    @property
    def weight_bytes(self) -> int:
        return int(llama_cpp.llama_model_size(self._model))

    def logits(self, ids: Sequence[int], positions: Sequence[int]) -> LogitsNV:
        """Teacher-forced logits after reading `ids[: p + 1]`, for each p of `positions`; one row each."""
        self._check_room(len(ids))
        wanted = set(positions)
        self._forget()
        self._decode([(token, place, 0, place in wanted) for place, token in enumerate(ids)])
        return np.stack([self._logits_at(place) for place in positions])

    def generate(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, *, stop: bool
    ) -> Iterator[tuple[int, list[int]]]:
        """Greedy answers as they are finished: (index of the prompt, its new tokens without the one that ended it).

        `stop`: end at a token that ends generation, as servers do; otherwise run to `max_new_tokens`.
        """
        for prompt in prompts:
            self._check_room(len(prompt) + max_new_tokens)
        self._forget()
        answers: list[list[int]] = [[] for _ in prompts]
        waiting, free = deque(range(len(prompts))), deque(range(self.n_sequences))
        running: dict[int, int] = {}  # sequence -> index of the prompt
        while waiting or running:
            while waiting and free:
                sequence, index = free.popleft(), waiting.popleft()
                running[sequence] = index
                answers[index].append(self._read(prompts[index], sequence))
            for sequence, index in list(running.items()):
                ended = stop and self.vocabulary.ends_generation(answers[index][-1])
                if ended or len(answers[index]) >= max_new_tokens:
                    self._release(sequence)
                    del running[sequence]
                    free.append(sequence)
                    yield index, answers[index][:-1] if ended else answers[index]
            self._step([(s, answers[i], len(prompts[i])) for s, i in sorted(running.items())])

    def _read(self, prompt: Sequence[int], sequence: int) -> int:
        """Read a prompt into `sequence`; returns the token that follows."""
        last = len(prompt) - 1
        self._decode([(token, place, sequence, place == last) for place, token in enumerate(prompt)])
        return self._best_token(last)

    def _step(self, rows: Sequence[tuple[int, list[int], int]]) -> None:
        """Append one token to the answer of every (sequence, answer, length of the prompt), in one batch."""
        if rows:
            self._decode([(answer[-1], n_prompt + len(answer) - 1, seq, True) for seq, answer, n_prompt in rows])
        for place, (_, answer, _) in enumerate(rows):
            answer.append(self._best_token(place))

    def _release(self, sequence: int) -> None:
        llama_cpp.llama_memory_seq_rm(self._memory, sequence, -1, -1)

    def _forget(self) -> None:
        llama_cpp.llama_memory_clear(self._memory, False)

    def _best_token(self, place: int) -> int:
        return int(self._logits_at(place).argmax())

    def _logits_at(self, place: int) -> LogitsNV:
        pointer = llama_cpp.llama_get_logits_ith(self._context, place)
        return np.ctypeslib.as_array(pointer, shape=(self.vocabulary.size,)).copy()

    def _decode(self, tokens: Sequence[tuple[int, int, int, bool]]) -> None:
        """Run the model on (token, position, sequence, logits wanted)."""
        batch = self._batch
        batch.n_tokens = len(tokens)
        for place, (token, position, sequence, wanted) in enumerate(tokens):
            batch.token[place] = token
            batch.pos[place] = position
            batch.n_seq_id[place] = 1
            batch.seq_id[place][0] = sequence
            batch.logits[place] = wanted
        with quiet() as errors:
            code = llama_cpp.llama_decode(self._context, batch)
        if code != 0:
            raise ModelError(f"{self.gguf}: llama_decode returned {code}: {'; '.join(errors)}")

    def _check_room(self, n_tokens: int) -> None:
        if n_tokens > self.n_ctx_tokens:
            raise ModelError(
                f"export.n_ctx: {self.n_ctx_tokens} tokens do not hold a held-out row with its answer "
                f"({n_tokens} tokens); raise export.n_ctx or lower eval.max_new_tokens"
            )


def n_threads(weight_bytes: int) -> int:
    """One for a small model: llama.cpp's threads wait for each other actively, and longer than they would work."""
    return 1 if weight_bytes < _SMALL_MODEL_BYTES else os.cpu_count() or 1
