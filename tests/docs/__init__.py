"""The pages do what they say: each command is run, each example is read by what reads it."""
