"""Named instances as plain data: for each model, functions that return the JSON values of an instance."""
