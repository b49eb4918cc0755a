"""Training runs: what all tasks share, and what each brings."""
