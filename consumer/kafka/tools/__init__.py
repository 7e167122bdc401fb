"""Reading, sending and replaying from the command line. A worker imports none of it."""
