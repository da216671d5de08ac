"""What Tuneline tells a user who has to change something. One line: the key, file or row; what is wrong; the fix."""


class TunelineError(Exception):
    """Base of every error a user can mend; anything else that escapes is a defect of Tuneline."""


class ConfigError(TunelineError):
    """A value in conf/ or params.yaml is unknown, of the wrong type, or impossible beside another."""


class DataError(TunelineError):
    """A data file or row cannot be used; the message starts with file:line where there is one."""


class ModelError(TunelineError):
    """A model, tokenizer, chat template or adapter cannot be used as configured."""


class BudgetError(TunelineError):
    """A measured figure is outside what the configuration allows."""


class EnvironmentProblem(TunelineError):  # noqa: N818  (EnvironmentError is a built-in)
    """Something this machine lacks: a library, the converter, the network, a device."""
