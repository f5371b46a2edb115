"""Pictures of a `GradientHistory`, made with Bokeh: for a notebook, a report, the tab."""
