"""Pages written from the Specs: README table, man page, page of modes."""
