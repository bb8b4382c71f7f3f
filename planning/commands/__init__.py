"""One command of ``python -m planning`` a file."""
