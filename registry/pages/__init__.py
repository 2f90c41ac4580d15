"""Pages generated from the Specs: README table, man pages, page of modes, list of public names."""
