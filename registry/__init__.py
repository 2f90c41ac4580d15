"""Who offers what: Spec, discovery, chains and laws."""
