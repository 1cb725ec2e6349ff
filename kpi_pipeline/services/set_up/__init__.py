"""Sets up an installation: tests each answer of its operator, and writes them down."""
