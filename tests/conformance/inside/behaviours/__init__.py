"""The probes. They run in every Python of the corpus, with the standard library and one distribution."""
