"""When a batch of windows is sent, and how long a call may take. Pure; clocks are the caller's."""
