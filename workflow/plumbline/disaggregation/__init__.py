"""What a remote accelerator costs, and what it buys to know what the program means."""
