"""The model in the wheel; training/ in the repository holds what drew and trained it."""
