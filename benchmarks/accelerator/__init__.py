"""One command for a machine with an accelerator: `make bench-gpu`."""
