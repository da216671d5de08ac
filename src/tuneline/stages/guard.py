"""Fail before any old output is touched: when params.yaml is stale, or one of its values is impossible.

The root stages depend on the file it writes. That file never changes, so passing again repeats nothing.
"""

from tuneline.config.digest import conf_digest
from tuneline.config.params import read_params
from tuneline.entry import run, stage_arguments
from tuneline.errors import ConfigError
from tuneline.output import write_text


def main() -> None:
    paths = stage_arguments(__doc__, "conf", "out")
    params = read_params(paths.params)
    if params.conf_digest != conf_digest(paths.conf):
        raise ConfigError(f"{paths.params} is stale: {paths.conf}/ has changed since; run `make params`")
    write_text(paths.out, "params.yaml was composed from conf/, and every value in it is valid.\n")


if __name__ == "__main__":
    run(main)
