"""What the model of completeness is made of and how it is judged."""
