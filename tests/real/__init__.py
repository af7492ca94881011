"""A real Home Assistant for the tests: installing it, running it, and a witness of what it did."""
