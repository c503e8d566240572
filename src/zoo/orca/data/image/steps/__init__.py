"""The steps of an `ImagePipeline`."""
