"""The special tokens of the embedded model."""

PAD, TURN_START, TURN_END = "<|pad|>", "<|im_start|>", "<|im_end|>"
