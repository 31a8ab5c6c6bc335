"""Speech recognition: the stage and one file per engine."""
