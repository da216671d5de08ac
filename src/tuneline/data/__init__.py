"""Rows in, canonical examples out: reading, formats, cleaning, splitting. No torch, no Hydra."""
