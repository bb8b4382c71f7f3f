"""What a client of a deployed stack sees."""
