"""The cleaning rules, and what carries them out."""

from typing import Annotated, Literal

from pydantic import Field

from tuneline.config.schema.section import Count, CountOrZero, Fraction, RepoPath, Strict, Texts

PiiAction = Literal["redact", "drop", "keep"]


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
