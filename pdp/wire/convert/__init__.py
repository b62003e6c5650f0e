"""Messages to values, and back. Nothing is judged here beyond the bounds of a message."""
