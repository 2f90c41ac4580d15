"""N-gram tables and style injection."""
