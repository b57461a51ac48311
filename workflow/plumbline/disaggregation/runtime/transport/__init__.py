"""From one process to another: frames over a socket, their authentication, and what they cost."""
