"""Rows written by a teacher model: the only room that opens a connection on its own. No torch, no Hydra."""
