"""What the commands that measure need: made-up rows, the same work done by other libraries, time and memory."""
