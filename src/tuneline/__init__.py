"""Tuneline: an LLM fine-tune as one declarative, versioned, verified experiment."""
