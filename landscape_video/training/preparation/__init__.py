"""Turn videos of any kind into a training set: scenes, filters, captions, report."""
