"""Facts of the world with their source and date: data files in ``data/`` and one typed loader a subject.

The lowest room of the library: it knows nothing of settings, plans or decisions. ``data/SOURCES.md`` says where every
file comes from, how old it is and what not to trust.
"""
