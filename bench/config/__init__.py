"""What a run is: tasks, chains, models, seeds, and where their data come from."""
