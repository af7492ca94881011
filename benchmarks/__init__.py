"""Measures otsd beside what it is made of; ``scripts/benchmark`` runs it."""
