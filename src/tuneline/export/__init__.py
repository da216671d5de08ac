"""From the tuned model to a file that is shipped: merge, convert, quantise, compare every link, package."""

import tuneline.model  # noqa: F401  (quiets bitsandbytes, before a module here imports PEFT, which imports it)
