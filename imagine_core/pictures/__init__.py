"""Pictures as files: decoding, PNG with metadata, writing that never leaves half a file."""
