"""Several processes at one Email Bison, measured by the sandbox's own log."""
