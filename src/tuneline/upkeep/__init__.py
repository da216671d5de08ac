"""What keeps a repository whole between experiments: the queue, damaged files, leftovers. No torch."""
