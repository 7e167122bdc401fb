"""The configuration: a typed tree, the sources it is merged from, and its rules. Pure but for reading files."""
