"""Today's prices from AWS: read here, at the edge, for the data files or for a plan. ``planning`` knows none of it."""
