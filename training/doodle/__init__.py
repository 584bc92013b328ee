"""Makes doodle: the drawer of its training pictures, its training and its judge."""
