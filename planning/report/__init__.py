"""The plan for people: tables in the terminal."""
