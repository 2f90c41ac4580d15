"""How a run is carried out: units of work, engines, stored results."""
