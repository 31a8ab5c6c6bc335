"""How many nodes so many devices need: `planner`, over the measured `costs`."""
