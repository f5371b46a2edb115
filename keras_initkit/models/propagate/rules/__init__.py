"""Rules for the statistics behind a layer, a file for each family of layers."""
