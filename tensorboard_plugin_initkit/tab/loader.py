"""What TensorBoard finds at its start: it imports nothing that could be missing or slow."""

import argparse

from tensorboard.plugins import base_plugin

from tensorboard_plugin_initkit import PLUGIN_NAME


class InitkitLoader(base_plugin.TBLoader):
    """Loads the plugin; where that fails, one that says why."""

    def fix_flags(self, flags: argparse.Namespace) -> None:
        """Have TensorBoard keep every record, unless the user has said how many.

        By default it keeps a random sample, in which the spike of a single step is lost.
        """
        samples = getattr(flags, "samples_per_plugin", None)
        if isinstance(samples, dict):
            samples.setdefault(PLUGIN_NAME, 0)

    def load(self, context: base_plugin.TBContext) -> base_plugin.TBPlugin:
        """Make the plugin."""
        try:
            from tensorboard_plugin_initkit.tab.plugin import InitkitPlugin

            return InitkitPlugin(context)
        except Exception as error:
            from tensorboard_plugin_initkit.tab.web import BrokenPlugin

            return BrokenPlugin(error)
