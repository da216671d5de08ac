"""The base model."""

from collections.abc import Mapping

from tuneline.config.schema.section import CommitHash, Count, Name, Positive, RepoPath, Sha256, Strict, Text


class LearningRates(Strict):
    """Peak learning rates that suit a model of this size; a phase takes the one of its method's family."""

    full: Positive  # all weights are trained
    adapter: Positive  # only a low-rank adapter is trained


class ModelConfig(Strict):
    """The base model."""

    name: Name  # label in reports
    name_or_path: RepoPath  # a folder in the repository, or a hub id such as Qwen/Qwen3-8B
    revision: CommitHash | None  # hub commit; null only for a folder
    sha256: Mapping[RepoPath, Sha256] | None  # of each file, by its path in the folder; null only for a hub model
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
