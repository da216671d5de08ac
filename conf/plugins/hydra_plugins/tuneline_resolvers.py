"""Resolvers that conf/ uses. Hydra loads this because `hydra.plugins_path` names conf/plugins."""

from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, ListConfig, OmegaConf

from tuneline.config.digest import conf_digest


class TunelineResolvers(SearchPathPlugin):
    """A search-path plugin only because Hydra tells such a plugin which conf folder is being composed.

    Under `dvc exp run` that is the conf/ of the tree that runs, wherever this file was loaded from.
    """

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        folders = [element.path for element in search_path.get_path() if element.provider == "main"]
        if not folders:  # Hydra also starts without a conf folder of ours, as when DVC parses a sweep
            return
        conf = Path(folders[0].removeprefix("file://"))
        OmegaConf.register_new_resolver("conf_digest", lambda: conf_digest(conf), replace=True)
        OmegaConf.register_new_resolver("with_outtype", with_outtype, replace=True)
        OmegaConf.register_new_resolver("differs", differs, replace=True)
        OmegaConf.register_new_resolver("when_set", when_set, replace=True)
        OmegaConf.register_new_resolver("pick", pick, replace=True)


def with_outtype(outtype: str, quants: object) -> object:
    """`f16` and `[q8_0]` as `[f16, q8_0]`: the files that export makes. No list stays, for the schema."""
    return ListConfig([outtype, *quants]) if isinstance(quants, ListConfig) else quants


def differs(value: object, other: object) -> bool:
    """False when both are the same word."""
    return value != other


def when_set(value: object, then: object, otherwise: object) -> object:
    """One of two lists, by whether a value that may be null is given. No list stays, for the schema."""
    chosen = otherwise if value is None else then
    return ListConfig(list(chosen)) if isinstance(chosen, list | ListConfig) else chosen


def pick(choice: str, table: DictConfig) -> object:
    """The entry of a table written in conf/; an unknown choice stays, so that the schema can name it."""
    return table.get(choice, choice)
