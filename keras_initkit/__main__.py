"""`python -m keras_initkit`: the command `keras-initkit`."""

import sys

from tensorboard_plugin_initkit.command import main

sys.exit(main())
