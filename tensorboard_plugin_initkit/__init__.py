"""Whatever TensorBoard needs: what is recorded, read, shown and drawn. It never imports Keras.

TensorBoard must be able to show a log without paying for Keras, or dying of it.
"""

PLUGIN_NAME = "initkit"
