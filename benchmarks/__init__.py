"""Side by side with peers; see README.md. Run with `python -m benchmarks`."""
