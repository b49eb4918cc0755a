"""Learning from a teacher: one file per method, and what they share."""
