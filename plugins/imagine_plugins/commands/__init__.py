"""The commands of the `imagine` program."""
