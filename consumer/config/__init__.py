"""The configuration: a typed tree, the sources it is merged from, and the rules it has to satisfy. Pure but for reading
files.
"""
