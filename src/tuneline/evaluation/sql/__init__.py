"""Running SQL that nobody has read."""
