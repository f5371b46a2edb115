"""What keras-initkit records, and how it is written and read: NumPy only, never Keras.

TensorBoard must be able to read a log without paying for Keras, or dying of it.
"""
