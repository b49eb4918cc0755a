"""Experiments: many trainings with one question, resumable at any point, one table in the end."""
