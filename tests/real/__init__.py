"""A real Home Assistant for the tests, with a witness of what it did."""
