"""Where a curator writes to: one module for each kind of store, imported when its URL is used."""
