"""Builders shared by tests of several packages."""
