"""Settings of Hydra's commands: which keys there are, and which types of values they take."""
