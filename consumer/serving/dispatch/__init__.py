"""From single windows to model calls and back, through refusals, poison and outages."""
