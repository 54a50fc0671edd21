"""Where bytes come from. ``opening.open_source`` is the door; importing this package loads nothing."""
