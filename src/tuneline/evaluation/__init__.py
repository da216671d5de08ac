"""Scoring models: tasks, generation, likelihood. `tasks`, `sql` and `statistics` need no torch."""
