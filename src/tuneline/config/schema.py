"""What params.yaml may hold: each key, its type, unit and range. The values are in conf/: no defaults here.

Rules that compare two keys are in `tuneline.config.rules`; `tuneline.config.params.read_params` applies both.
"""

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator


class Strict(BaseModel):
    """Every section: no unknown or missing key, no conversion ('1' is no number), no NaN, frozen."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


def _matching(pattern: str, allowed: str) -> Callable[[str], str]:
    """Validates text that dvc.yaml puts into a command, where free text would be an injection."""

    def validate(text: str) -> str:
        if re.fullmatch(pattern, text) is None or ".." in text:
            raise ValueError(allowed)
        return text

    return validate


def _text(value: object) -> str:
    if isinstance(value, str) and value:
        return value
    raise ValueError("a list of module names such as [q_proj, v_proj]")


def _target_modules(value: object) -> str | tuple[str, ...]:
    match value:
        case str() if value:
            return value
        case [_, *_]:
            return tuple(_text(name) for name in value)
    raise ValueError("all-linear, a regular expression, or a list of module names such as [q_proj, v_proj]")


Count = Annotated[int, Field(gt=0)]
CountOrZero = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Text = Annotated[str, Field(min_length=1)]
Name = Annotated[str, AfterValidator(_matching(r"[a-z][a-z0-9_]*", "lower-case letters, digits and _ only"))]
TaskName = Annotated[str, AfterValidator(_matching(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", "letters, digits, _ . and - only"))]
RepoPath = Annotated[
    str,
    AfterValidator(
        _matching(
            r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_.][A-Za-z0-9_.-]*)*",
            "a path inside the repository or a hub id, in letters, digits, _ . - and single /",
        )
    ),
]
SourcePath = Annotated[
    str,
    AfterValidator(
        _matching(
            r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_.*?][A-Za-z0-9_.*?-]*)*",
            "a path inside the repository, in letters, digits, _ . - and single /; * and ? stand for several files",
        )
    ),
]
Address = Annotated[
    str,
    AfterValidator(
        _matching(
            r"https?://([^\s/@]*@)?(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?([/?#]\S*)?",
            "an address such as http://127.0.0.1:8000/v1",
        )
    ),
]
CommitHash = Annotated[str, AfterValidator(_matching(r"[0-9a-f]{40}", "a full commit hash: 40 lower-case hex digits"))]
Sha256 = Annotated[str, AfterValidator(_matching(r"[0-9a-f]{64}", "a SHA-256: 64 lower-case hex digits"))]

MethodName = Literal["full", "lora", "qlora", "dora", "rslora"]
Family = Literal["full", "adapter"]
Objective = Literal["sft", "pretrain"]
SourceFormat = Literal[
    "auto", "alpaca", "sharegpt", "openai", "prompt_completion", "text", "html", "preference", "kto", "prompt"
]
SourceRole = Literal["pool", "replay", "test", "benchmark"]
PiiAction = Literal["redact", "drop", "keep"]
Device = Literal["cpu", "cuda", "mps"]
Precision = Literal["fp32", "bf16", "fp16"]
Dtype = Literal["float32", "bfloat16", "float16"]
Attention = Literal["sdpa", "eager", "flash_attention_2"]
Scheduler = Literal["cosine", "linear", "constant", "constant_with_warmup"]
Optimizer = Literal["adamw_torch", "adamw_torch_fused", "paged_adamw_8bit"]
EvalTask = Literal["text_to_sql", "exact_match"]
# PEFT's names of ways to combine adapters, and those of ways to combine whole models.
AdapterCombination = Literal["cat", "linear", "svd", "ties", "dare_linear", "dare_ties", "magnitude_prune"]
ModelCombination = Literal["linear", "slerp", "ties", "dare_ties", "task_arithmetic"]
MajoritySign = Literal["total", "frequency"]
OutType = Literal["f16", "bf16", "f32"]
# llama.cpp's file types that need no importance matrix, in lower case.
QuantType = Literal[
    "q2_k", "q3_k_s", "q3_k_m", "q3_k_l", "q4_0", "q4_1", "q4_k_s", "q4_k_m", "q5_0", "q5_1", "q5_k_s",
    "q5_k_m", "q6_k", "q8_0", "iq3_s", "iq3_m", "iq4_nl", "iq4_xs",
]  # fmt: skip
GgufType = Literal[OutType, QuantType]
Pick = Literal[GgufType, "smallest_within_budget"]

TargetModules = Annotated[str | tuple[str, ...], PlainValidator(_target_modules)]
Phases = Annotated[Mapping[Name, "PhaseConfig"], Field(min_length=1)]
# YAML has lists only; a tuple keeps a frozen section frozen.
Sources = Annotated[tuple["SourceConfig", ...], Field(strict=False, min_length=1)]
Texts = Annotated[tuple[Text, ...], Field(strict=False)]
TaskNames = Annotated[tuple[TaskName, ...], Field(strict=False)]
QuantTypes = Annotated[tuple[QuantType, ...], Field(strict=False)]
GgufTypes = Annotated[tuple[GgufType, ...], Field(strict=False, min_length=1)]


class LearningRates(Strict):
    """Peak learning rates that suit a model of this size; a phase takes the one of its method's family."""

    full: Positive  # all weights are trained
    adapter: Positive  # only a low-rank adapter is trained


class ModelConfig(Strict):
    """The base model."""

    name: Name  # label in reports
    name_or_path: RepoPath  # a folder in the repository, or a hub id such as Qwen/Qwen3-8B
    revision: CommitHash | None  # hub commit; null only for a folder
    tracked_path: RepoPath  # what DVC watches: the folder, or for a hub model its conf file with the pin
    trust_remote_code: bool  # run Python code that comes with the model
    licence: Text  # SPDX identifier, or the licence's own name; goes into the model card
    max_position_embeddings: Count  # tokens the architecture can address
    max_served_context: Count | None  # tokens up to which llama.cpp computes what training did; null: all of them
    chat_template_kwargs: Mapping[Name, bool | int | str]  # what the chat template reads besides the messages
    learning_rate: LearningRates

    @property
    def is_local(self) -> bool:
        """True for a folder in the repository; False for a hub model, whose tracked path is its conf file."""
        return self.tracked_path == self.name_or_path


class MethodConfig(Strict):
    """Which weights are trained."""

    name: MethodName
    family: Family  # full: the phase gives a whole model; adapter: a PEFT folder


class LoraConfig(Strict):
    """Low-rank adapter, in PEFT's words."""

    r: Count  # rank
    lora_alpha: Positive  # the update is scaled by lora_alpha / r (rslora: / sqrt(r))
    lora_dropout: BelowOne  # fraction of adapter inputs zeroed in training
    target_modules: TargetModules  # all-linear, a regular expression, or module names
    bias: Literal["none", "all", "lora_only"]  # which biases are trained
    use_dora: bool  # weight-decomposed adapter
    use_rslora: bool  # rank-stabilised scaling


class QuantizationConfig(Strict):
    """The frozen base in 4 bits (bitsandbytes), in Transformers' words."""

    load_in_4bit: Literal[True]
    bnb_4bit_quant_type: Literal["nf4", "fp4"]
    bnb_4bit_use_double_quant: bool  # quantise the block scales as well
    bnb_4bit_compute_dtype: Dtype  # type that matrix products run in


class PhaseConfig(Strict):
    """One training stage of the recipe."""

    objective: Objective  # which rows are used: sft: conversations, pretrain: raw text
    init: RepoPath  # model.tracked_path, or models/phase/<an earlier phase>
    num_train_epochs: Positive  # passes over the training rows
    max_steps: int  # optimizer steps; -1: num_train_epochs decides
    learning_rate: Positive  # peak, after warm-up
    max_length: Annotated[int, Field(ge=8)]  # tokens per example, or per packed row
    packing: bool  # several examples share one row


class RecipeConfig(Strict):
    """A chain of training phases."""

    name: Name
    final: Name  # the phase whose model is evaluated, merged and shipped
    phases: Phases  # in order; each is a DVC stage of its own


class HubDatasetConfig(Strict):
    """A dataset on the hub, at one commit."""

    repo: RepoPath  # org/name
    revision: CommitHash
    config: Text | None  # the dataset's configuration (subset), where it has several
    split: Text  # e.g. train


class SourceConfig(Strict):
    """Files or a hub dataset, whose rows are of one format."""

    name: Name
    path: SourcePath | None  # a file under data.tracked_path, or a glob of files; null when hub is set
    hub: HubDatasetConfig | None
    format: SourceFormat  # auto looks at the first rows' keys
    role: SourceRole  # pool: split by hash; replay: training only, for the mixture; test, benchmark: held out as given
    columns: Mapping[Text, Text]  # a key of the format -> the rows' own name for it; empty: the names are the format's
    system_prompt: str | None  # for this source's conversations without one; null: data.system_prompt
    task_prefix: str | None  # put before the first user message, to tell tasks apart
    weight: NotNegative | None  # share of the training rows relative to the other weighted sources; null: every row
    count: Count | None  # exactly so many training rows; more than there are repeats them; null: every row


class MixtureConfig(Strict):
    """How the training rows of several sources are put together; validation and test rows are never mixed."""

    n_rows: Count | None  # rows of the weighted sources together; null: as many as no repeated row allows
    replay_fraction: BelowOne  # share of the training rows that comes from sources with role replay


class DataConfig(Strict):
    """What is learned from and tested on."""

    name: Name
    tracked_path: RepoPath  # what DVC watches: the folder, or for hub datasets their conf file
    licence: Text  # of the data; goes into the model card and the lineage
    languages: Texts  # ISO 639-1 codes; go into the model card
    sources: Sources
    mixture: MixtureConfig
    meta_fields: Texts  # extra row keys that are carried to evaluation untouched
    system_prompt: str | None  # put before every conversation that has no system message
    max_rejected_fraction: Fraction  # of rows read; ingest fails above it


class RuleConfig(Strict):
    """A cleaning rule without settings."""

    enabled: bool


class EncodingRuleConfig(Strict):
    """U+FFFD, control characters, lone surrogates, mojibake."""

    enabled: bool
    action: Literal["repair", "reject"]  # repair: with ftfy, and reject what it cannot mend


class LengthRuleConfig(Strict):
    """Reject rows by length."""

    enabled: bool
    min_chars: CountOrZero  # characters, of each message whoever says it, or of the text
    max_chars: Count  # characters, of each message, or of the text
    max_tokens: Count | None  # tokens of the whole row; null: not counted
    tokenizer: RepoPath  # the tokenizer.json that max_tokens counts with; DVC watches it


class SpecialTokensRuleConfig(Strict):
    """Control tokens of chat templates written out inside a text."""

    enabled: bool
    tokens: Texts  # as they are spelled


class RepetitionRuleConfig(Strict):
    """Text that repeats itself (Rae et al. 2021, "Scaling Language Models ... Gopher", table A1)."""

    enabled: bool
    min_words: Count  # shorter texts are not judged
    max_duplicate_line_fraction: Fraction  # of the lines
    max_top_bigram_fraction: Fraction  # of the words, in the most frequent run of 2 words
    max_top_trigram_fraction: Fraction
    max_top_fourgram_fraction: Fraction
    max_duplicate_fivegram_fraction: Fraction  # of the words, in runs of 5 words that occur more than once
    max_duplicate_tengram_fraction: Fraction


class LanguageRuleConfig(Strict):
    """Which languages messages may be in."""

    enabled: bool
    languages: Texts  # ISO 639-1 codes
    min_confidence: Fraction  # of another language, before a message is rejected for it
    min_letters: Count  # shorter messages are not judged


class ToxicityRuleConfig(Strict):
    """Insults and obscenities, by a lexicon."""

    enabled: bool
    languages: Texts  # ISO 639-1 codes of the lexicons
    max_words: CountOrZero  # words of the lexicon a row may hold
    allowed_words: Texts  # words of the lexicon that are fine in this data


class PiiRuleConfig(Strict):
    """Personal data and secrets: redact puts a placeholder in its place, drop rejects the row, keep lets it be."""

    enabled: bool
    email: PiiAction
    phone: PiiAction
    ip: PiiAction  # public addresses, IPv4 and IPv6
    card: PiiAction  # payment cards (Luhn)
    iban: PiiAction  # bank accounts (checksum)
    national_id: PiiAction  # identity, tax and social security numbers with a checksum or an unmistakable form
    secret: PiiAction  # cloud, hub and API keys, tokens, private keys


class NearDuplicatesRuleConfig(Strict):
    """MinHash LSH over runs of words; candidates are verified by their exact Jaccard similarity."""

    enabled: bool
    ngram: Count  # words in a run
    bands: Count  # more bands find more pairs
    rows_per_band: Count  # more rows find fewer, more similar pairs
    min_jaccard: Annotated[float, Field(gt=0, le=1)]  # of the two rows' runs, from which on they are copies
    min_answer_jaccard: Annotated[float, Field(ge=0, le=1)]  # of their answers' runs: copies teach the same; 0: any


class CleanConfig(Strict):
    """Cleaning rules, and what carries them out."""

    engine: Literal["local", "ray"]  # processes of this machine, or a Ray cluster; the same bytes come out
    workers: Count | None  # processes; null: one per core
    encoding: EncodingRuleConfig
    whitespace: RuleConfig  # line ends, trailing and repeated spaces; never in code, JSON, tables or mathematics
    empties: RuleConfig  # a message or text without a visible character
    length: LengthRuleConfig
    special_tokens: SpecialTokensRuleConfig
    refusals: RuleConfig  # assistant answers that decline
    language: LanguageRuleConfig
    toxicity: ToxicityRuleConfig
    repetition: RepetitionRuleConfig
    pii: PiiRuleConfig
    exact_duplicates: RuleConfig
    folded_duplicates: RuleConfig  # the same words, whatever their case, punctuation and white space
    near_duplicates: NearDuplicatesRuleConfig
    max_rejected_fraction: Fraction  # of the examples; clean fails above it


class ContaminationConfig(Strict):
    """Training rows that a held-out row (role test or benchmark, or drawn for the test) gives away."""

    action: Literal["drop", "fail"]
    ngram: Count | None  # words in a row that both hold; null: not compared (equal prompts always are)
    max_ngram_rows: Count  # a run of words in more training rows than this is their template, and gives nothing away
    min_jaccard: Annotated[float, Field(gt=0, le=1)] | None  # of near copies; null: not compared


class EndpointConfig(Strict):
    """Who writes: a server that speaks OpenAI's chat completions."""

    base_url: Address
    model: Text  # as the endpoint calls it
    api_key_env: Text | None  # NAME of the environment variable that holds the key; null: sent without a key
    limit_parameter: Literal["max_tokens", "max_completion_tokens"]  # how the endpoint calls a job's max_tokens
    sends_seed: bool  # send the experiment's seed along
    timeout_s: Positive  # seconds an answer may take
    max_retries: CountOrZero  # attempts after the first, when the endpoint is busy, failing or silent
    concurrency: Count  # requests under way at once
    max_total_tokens: Count  # tokens, prompts and answers, that one run may use


class TeacherJobConfig(Strict):
    """What the teacher writes, from which rows."""

    name: Name
    kind: Literal["rewrite", "generate"]  # rewrite: a row with one text replaced; generate: new prompts and answers
    source: Name  # a source with role pool, whose clean rows are shown to the teacher
    n_rows: Count | None  # rows of it, drawn by the hash of seed and id; null: every row
    template: RepoPath  # in the folder of templates
    target: Literal["answer", "prompt"] | None  # what rewrite replaces: the last answer or the last user message
    temperature: NotNegative | None  # of sampling; null: not sent, the endpoint's own
    max_tokens: Count  # tokens an answer may have


class AugmentConfig(Strict):
    """Rows written by a teacher model."""

    endpoint: EndpointConfig | None  # null without jobs
    jobs: Annotated[tuple[TeacherJobConfig, ...], Field(strict=False)]  # none: no network, no new rows
    max_rejected_fraction: Fraction  # of the rows in the answers; augment fails above it
    stages: Annotated[tuple[Literal["teacher"], ...], Field(strict=False)]  # none: no stage
    examples: Literal["data/clean/examples.jsonl", "data/augmented/clean/examples.jsonl"]  # what split divides
    reported: Literal["conf/augment/off.yaml", "data/augmented"]  # of theirs, by describe; off: nothing


class SplitConfig(Strict):
    """Train, validation and test rows."""

    val_fraction: BelowOne  # of the pool
    test_fraction: BelowOne  # of the pool, when no source has role test
    salt: Text  # another word draws another split
    contamination: ContaminationConfig


class TrainConfig(Strict):
    """How training steps; the same on every hardware."""

    global_batch_size: Count  # sequences (packed rows) per optimizer step, over all devices
    lr_scheduler_type: Scheduler
    warmup_ratio: BelowOne  # fraction of the steps
    weight_decay: NotNegative
    adam_beta1: BelowOne
    adam_beta2: BelowOne
    max_grad_norm: Positive  # gradients are scaled down to this L2 norm
    logging_steps: Count  # optimizer steps between points of the loss curve
    eval_steps: Count  # optimizer steps between validation losses
    save_steps: Count  # optimizer steps between checkpoints: what a kill costs at most
    save_total_limit: Annotated[int, Field(ge=2)]  # checkpoints on disk: the newest, and one in case it is damaged
    unfinished_kept: Annotated[int, Field(ge=0)]  # trainings that did not end whose checkpoints stay
    unfinished_max_gib: NotNegative  # of their checkpoints together
    early_stopping_patience: Count | None  # evaluations without improvement before stopping; null: never
    max_truncated_fraction: Fraction  # inspect fails when it leaves out more rows than this


class HardwareConfig(Strict):
    """The machine; changes speed and rounding, not the experiment."""

    name: Name
    device: Device
    memory_gib: Positive | None  # accelerator memory of one device; null: not checked
    num_devices: Count
    precision: Precision  # of computation; a frozen base is held in it on accelerators
    attn_implementation: Attention
    micro_batch_size: Count  # sequences per device and forward pass
    eval_batch_size: Count  # sequences per forward pass without gradients
    gradient_checkpointing: bool  # recompute activations: less memory, about a third more time
    optim: Optimizer


class EvalConfig(Strict):
    """How base and tuned model are scored."""

    task: EvalTask
    resources: RepoPath  # what the task needs besides the rows (DVC watches it); a conf file when nothing
    max_new_tokens: Count  # tokens an answer may have
    confidence: Annotated[float, Field(gt=0, lt=1)]  # of the intervals
    statement_timeout_s: Positive  # seconds one predicted SQL statement may run
    max_examples: Count | None  # of the test split; null: all
    harness_tasks: TaskNames  # lm-eval task names; none: the harness stage does not exist
    harness_uncompared: TaskNames  # those of them whose rows the training rows may hold; no claim follows from them
    harness_limit: Count | None  # examples per lm-eval task; null: all


class CombineSourceConfig(Strict):
    """One of the trained things that are combined."""

    path: RepoPath  # a phase's output, or a folder in merge.tracked_path
    weight: float  # of it in the combination; negative takes away what it learned


class CombineConfig(Strict):
    """Several adapters or whole models become one."""

    family: Family  # of every source: adapter: through PEFT; full: whole models
    combination_type: AdapterCombination | ModelCombination
    sources: Annotated[tuple[CombineSourceConfig, ...], Field(strict=False, min_length=2)]
    density: Annotated[float, Field(gt=0, le=1)] | None  # share of each difference from the base that is kept
    majority_sign_method: MajoritySign | None  # how ties elects a sign: by mass, or by votes
    svd_rank: Count | None  # rank of the adapter that svd gives; null: the sources' largest


class MergeConfig(Strict):
    """Adapter and base as one model, before that several of them as one."""

    tuned: RepoPath  # what is evaluated and merged: the final phase's folder, or models/combined
    tracked_path: RepoPath  # what DVC watches besides the final phase, when combining
    stages: Annotated[tuple[Literal["combined"], ...], Field(strict=False)]  # none: nothing is combined
    combine: CombineConfig | None  # null: nothing is combined
    dtype: Dtype  # of the merged weights on disk
    check_examples: Count  # held-out rows on which logits are compared before and after
    max_relative_logit_diff: Positive  # fraction of the largest |logit|


class BudgetConfig(Strict):
    """How far a GGUF may be from the merged model."""

    kl_mean_nats: NotNegative  # mean KL(merged || GGUF) per token, in nats; at most
    top1_agreement: Fraction  # fraction of positions with the same most likely token; at least
    execution_accuracy_drop: Fraction  # loss of task score, 0..1; at most


class ImatrixConfig(Strict):
    """The importance matrix that quants are made with."""

    n_rows: Count  # training conversations, or all there are
    n_ctx: Count  # tokens of one piece of them


class ExportConfig(Strict):
    """GGUF files."""

    outtype: OutType  # type the converter writes; the quants are made from it
    quants: QuantTypes
    imatrix: ImatrixConfig | None  # null: every weight counts the same
    calibrated: Annotated[tuple[Literal["imatrix"], ...], Field(strict=False)]  # with imatrix: its stage
    plain: QuantTypes  # without imatrix: the quants
    weighted: QuantTypes  # with imatrix: the quants
    verified: GgufTypes  # outtype, then the quants: conf/ computes it
    pick: Pick  # the file in models/deploy
    all_within_budget: bool  # with a type picked by name; otherwise the outtype alone must hold
    vllm: bool  # models/deploy also ships the merged model in safetensors
    lora_base: GgufType | None  # models/deploy also ships the adapter alone, and the base in this type; null: neither
    lora_bases: Annotated[tuple[GgufType, ...], Field(strict=False)]  # of lora_base: the stages' instances
    verify_examples: Count  # held-out rows for the comparison of logits
    score_examples: Count | None  # held-out rows scored by the task; null: all
    n_ctx: Count  # tokens of context in llama.cpp
    budgets: Mapping[GgufType, BudgetConfig]  # at least one per verified type


class TrackingConfig(Strict):
    """Experiment tracking outside DVC."""

    wandb: Literal["disabled", "offline", "online"]
    project: Text  # W&B project


class Params(Strict):
    """The whole of params.yaml."""

    conf_digest: Sha256  # of conf/**/*.yaml when params.yaml was composed
    seed: Annotated[int, Field(ge=0, lt=2**32)]  # of every random draw
    model: ModelConfig
    method: MethodConfig
    lora: LoraConfig | None  # null: no adapter
    quantization: QuantizationConfig | None  # null: the base is not quantised
    recipe: RecipeConfig
    data: DataConfig
    clean: CleanConfig
    augment: AugmentConfig
    split: SplitConfig
    train: TrainConfig
    hardware: HardwareConfig
    eval: EvalConfig
    merge: MergeConfig
    export: ExportConfig
    tracking: TrackingConfig


def model_title(model: ModelConfig, data: DataConfig, method: MethodConfig) -> str:
    """What a packaged model is called: in its card, its file's name and the commands that load it."""
    return f"{model.name}-{data.name}-{method.name}"
