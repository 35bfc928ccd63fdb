"""What the compiler of TPUs makes of the programs; nothing runs."""
