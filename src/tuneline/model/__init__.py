"""Models: loading, chat template, PEFT methods, memory."""

import logging

# on import it reports that an optional kernel is not installed; nothing here uses it
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
