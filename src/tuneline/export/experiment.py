"""What a packaged model is the result of: every section of params.yaml that has a say in it, and a commit."""

from typing import Any

from tuneline.config.schema import GgufType
from tuneline.config.schema.whole import Settings
from tuneline.export.commit import Commit


class Experiment(Settings):
    """The sections by their names, and what came of them."""

    shipped: GgufType  # what export.pick came to
    commit: Commit  # of code, configuration and data

    @property
    def title(self) -> str:
        """What the model is called: in its card, its file's name and the commands that load it."""
        return f"{self.model.name}-{self.data.name}-{self.method.name}"

    @property
    def gguf_name(self) -> str:
        """The packaged file; named after its content, as it will leave this repository."""
        return f"{self.title}-{self.shipped}.gguf"

    def settings(self) -> dict[str, Any]:
        """Plain values, for JSON: all but the commit, which sets nothing."""
        return self.model_dump(mode="json", exclude={"commit"})
