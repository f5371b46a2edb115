"""How a record is written to TensorBoard's event files, and read from them."""
