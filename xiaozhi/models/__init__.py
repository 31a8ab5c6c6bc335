"""Published models: which there are (`catalogue`), how they are fetched (`pull`)."""
