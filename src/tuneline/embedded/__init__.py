"""The embedded default: a made-up world of databases, the questions asked about it, and the base model's corpus."""
