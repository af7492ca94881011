"""Diary: a calendar that needs nothing from elsewhere."""
