"""Flows made from flows: the same density by more parameters, or stored otherwise."""
