"""Fetching models from elsewhere: resumable, verified, and looked at before they are trusted."""
