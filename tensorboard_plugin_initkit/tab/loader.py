"""The entry point for TensorBoard's start: no slow imports, none prone to fail."""

import argparse

from tensorboard.plugins import base_plugin

from tensorboard_plugin_initkit import PLUGIN_NAME


class InitkitLoader(base_plugin.TBLoader):
    """Loader of the plugin, or else of one with the reason for the failure."""

    def fix_flags(self, flags: argparse.Namespace) -> None:
        """Have TensorBoard keep every record, unless the user has set a number.

        By default it keeps a random sample: the spike of a single step would be lost.
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
