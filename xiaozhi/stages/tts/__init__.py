"""Speech synthesis: the stage and one file per engine."""
