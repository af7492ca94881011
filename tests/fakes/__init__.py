"""Servers that stand in for the other side, and misbehave on request."""
