"""Scores of exported models on BOP folders: errors, matching, reports."""
