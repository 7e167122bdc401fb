"""The configuration: one typed tree, where it comes from, and what in it cannot be. Pure but for reading files."""
