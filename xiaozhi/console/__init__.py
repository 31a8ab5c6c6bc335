"""What the pages for owners are made of: sign-in, live feed, settings editor, trials of the stages. No HTTP in here."""
