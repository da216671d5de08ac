"""For every run of the tests."""

import sys


def pytest_unconfigure() -> None:
    """Close what llama-cpp-python opens as it is imported, /dev/null twice: Python complains of it at exit."""
    utils = sys.modules.get("llama_cpp._utils")
    if utils is not None:
        utils.outnull_file.close()
        utils.errnull_file.close()
